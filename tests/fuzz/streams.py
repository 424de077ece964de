"""Streams of MQTT packets as clients send them, over TCP or in WebSocket frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

from tests.support import packets, packets5
from tests.support.packets import Will

USERS = ("alice", "bob", "mallory")
DEVICES = ("phone", "tablet", "", "not a device", "alice:phone", "\u00e9" * 40)
TOPICS = (
    "open/a", "open/b/c", "open/\u00e9", "closed", "$SYS/x", "im/v1/alice/phone/up", "im/v1/bob/phone/up", "im/v1/bob/down",
    "im/v1", "", "a/+", "open/" + "x/" * 200, "/", "open//",
)  # fmt: skip
FILTERS = (
    "open/#", "open/+", "#", "+/+", "im/v1/alice/#", "im/v1/alice/down", "im/v1/bob/presence", "im/v1/+/down", "$share/g/open/#",
    "$SYS/#", "", "open/a#", "im/v1/alice/presence", "+" + "/+" * 150, "open/a",
)  # fmt: skip

_HANDSHAKE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def connect(random: Random) -> bytes:
    """A CONNECT, now and then of another version or with something refused."""
    protocol, level = random.choice((("MQTT", 4),) * 20 + (("MQTT", 5), ("MQIsdp", 3), ("MQTT", 0x84), ("HTTP", 4)))
    will = None
    if random.random() < 0.3:
        will = Will(random.choice(TOPICS), random.randbytes(random.randrange(20)), random.randrange(3), random.random() < 0.3)
    return packets.connect(
        random.choice(DEVICES),
        username=random.choice((*USERS, None)),
        password=random.choice((None, None, "right", "wrong")),
        clean=random.random() < 0.6,
        keepalive=random.choice((0, 60, 65_535)),
        will=will,
        protocol=protocol,
        level=level,
    )


def packet(random: Random) -> bytes:
    """One packet that a logged-in client may send."""
    packet_id = random.choice((1, 2, 3, 300, 32_768, 49_152, 49_153, 65_535))
    match random.randrange(12):
        case 0 | 1 | 2 | 3:
            return packets.publish(
                random.choice(TOPICS),
                random.randbytes(random.choice((0, 1, 50, 120, 130, 3_000))),
                qos=random.randrange(3),
                packet_id=packet_id,
                dup=random.random() < 0.1,
                retain=random.random() < 0.2,
            )
        case 4 | 5:
            kinds = (packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP)
            return packets.acknowledge(random.choice(kinds), packet_id)
        case 6 | 7 | 8:
            filters = ((random.choice(FILTERS), random.randrange(3)) for _ in range(random.randrange(1, 5)))
            return packets.subscribe(packet_id, *filters)
        case 9:
            return packets.unsubscribe(packet_id, *(random.choice(FILTERS) for _ in range(random.randrange(1, 4))))
        case 10:
            return packets.packet(packets.PINGREQ)
        case _:
            return random.choice((packets.packet(packets.DISCONNECT), connect(random), packets.packet(packets.PINGREQ)))


def stream(random: Random) -> list[bytes]:
    """The packets of one connection, of either version, CONNECT first most of the time."""
    first, more = (connect, packet) if random.random() < 0.5 else (connect5, packet5)
    began = [first(random)] if random.random() < 0.95 else []
    return began + [more(random) for _ in range(random.randrange(12))]


def _text(random: Random) -> str:
    return random.choice(("", "x", "\u00e9", "a/b", "#", "\0", "y" * 300))


_VALUES: dict[int, Callable[[Random], Any]] = {
    **dict.fromkeys((packets5.FORMAT, packets5.PROBLEMS, packets5.RESPONSE_INFO), lambda random: random.randrange(3)),
    **dict.fromkeys(
        (packets5.RECEIVE_MAX, packets5.ALIAS_MAX, packets5.ALIAS, packets5.KEEP_ALIVE),
        lambda random: random.choice((0, 1, 2, 3, 17, 65_535)),
    ),
    **dict.fromkeys(
        (packets5.EXPIRY, packets5.SESSION_EXPIRY, packets5.WILL_DELAY), lambda random: random.choice((0, 1, 2, 1000, 2**32 - 1))
    ),
    packets5.MAX_PACKET: lambda random: random.choice((0, 1, 20, 60, 200, 2**32 - 1)),
    packets5.SUB_ID: lambda random: random.choice((0, 1, 127, 128, 268_435_455)),
    packets5.USER: lambda random: (_text(random), _text(random)),
    **dict.fromkeys((packets5.CORRELATION, packets5.AUTH_DATA), lambda random: random.randbytes(random.randrange(9))),
    **dict.fromkeys((packets5.CONTENT_TYPE, packets5.REASON, packets5.AUTH_METHOD), _text),
    packets5.RESPONSE_TOPIC: lambda random: random.choice(TOPICS),
}
_USUAL = {
    "CONNECT": (packets5.SESSION_EXPIRY, packets5.RECEIVE_MAX, packets5.MAX_PACKET, packets5.ALIAS_MAX, packets5.USER),
    "WILL": (packets5.WILL_DELAY, packets5.EXPIRY, packets5.FORMAT, packets5.USER, packets5.RESPONSE_TOPIC),
    "PUBLISH": (packets5.ALIAS, packets5.EXPIRY, packets5.FORMAT, packets5.USER, packets5.CORRELATION, packets5.CONTENT_TYPE),
    "SUBSCRIBE": (packets5.SUB_ID, packets5.USER),
    "DISCONNECT": (packets5.SESSION_EXPIRY, packets5.REASON),
    "ACK": (packets5.REASON, packets5.USER),
}


def given(random: Random, place: str) -> list[tuple[int, Any]]:
    """Properties for a packet: most of the time none, and most of those that are may stand there."""
    if random.random() < 0.5:
        return []
    of = _USUAL[place] if random.random() < 0.9 else tuple(_VALUES)
    return [
        (identifier, _VALUES[identifier](random)) for identifier in random.sample(of, random.randrange(1, min(4, len(of) + 1)))
    ]


def connect5(random: Random) -> bytes:
    """A CONNECT of MQTT 5."""
    will = None
    if random.random() < 0.3:
        payload = random.randbytes(random.randrange(20))
        will = packets5.Will(random.choice(TOPICS), payload, random.randrange(3), random.random() < 0.3, given(random, "WILL"))
    return packets5.connect(
        random.choice(DEVICES),
        username=random.choice((*USERS, None)),
        password=random.choice((None, None, "right", "wrong")),
        clean=random.random() < 0.6,
        keepalive=random.choice((0, 60, 65_535)),
        will=will,
        given=given(random, "CONNECT"),
    )


def packet5(random: Random) -> bytes:
    """One packet that a logged-in client of MQTT 5 may send."""
    packet_id = random.choice((1, 2, 3, 300, 32_768, 49_152, 49_153, 65_535))
    match random.randrange(12):
        case 0 | 1 | 2 | 3:
            return packets5.publish(
                random.choice(TOPICS),
                random.randbytes(random.choice((0, 1, 50, 120, 130, 3_000))),
                qos=random.randrange(3),
                packet_id=packet_id,
                dup=random.random() < 0.1,
                retain=random.random() < 0.2,
                given=given(random, "PUBLISH"),
            )
        case 4 | 5:
            kind = random.choice((packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP))
            code = random.choice((None, 0, 0, 0x10, 0x80, 0x92, 0x97, 0x42))
            return packets5.acknowledge(kind, packet_id, code, random.choice((None, given(random, "ACK"))))
        case 6 | 7 | 8:
            options = (random.randrange(3) | random.choice((0, 4, 8, 12)) | random.choice((0, 16, 32, 48)) for _ in range(4))
            filters = ((random.choice(FILTERS), each) for each in list(options)[: random.randrange(1, 5)])
            return packets5.subscribe(packet_id, *filters, given=given(random, "SUBSCRIBE"))
        case 9:
            return packets5.unsubscribe(packet_id, *(random.choice(FILTERS) for _ in range(random.randrange(1, 4))))
        case 10:
            return packets.packet(packets.PINGREQ)
        case _:
            code = random.choice((None, 0, 4, 0x80, 0x42))
            goodbye = packets5.disconnect(code, given(random, "DISCONNECT"))
            return random.choice((goodbye, connect5(random), packets.packet(15), packets.packet(packets.PINGREQ)))


def in_frames(random: Random, chunks: list[bytes]) -> list[bytes]:
    """The same in a WebSocket: its handshake, then a frame for each chunk, some of them of other kinds."""
    frames = [_HANDSHAKE]
    for chunk in chunks:
        if random.random() < 0.05:
            frames.append(_frame(random.choice((1, 8, 9, 10, 0, 3, 15)), random.randbytes(random.randrange(130)), True))
        if random.random() < 0.1 and len(chunk) > 1:
            half = len(chunk) // 2
            frames += [_frame(2, chunk[:half], False), _frame(0, chunk[half:], True)]
        else:
            frames.append(_frame(2, chunk, True))
    return frames


def _frame(opcode: int, data: bytes, final: bool) -> bytes:
    """A frame with the mask that every client's must have; zeros mask nothing."""
    size = len(data)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + struct.pack(">H", size)
    return bytes((final << 7 | opcode,)) + length + bytes(4) + data
