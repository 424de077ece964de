"""Streams of MQTT packets as clients send them, over TCP or in WebSocket frames."""

from __future__ import annotations

import struct
from random import Random

from tests.support import packets
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
    """The packets of one connection, CONNECT first most of the time."""
    first = [connect(random)] if random.random() < 0.95 else []
    return first + [packet(random) for _ in range(random.randrange(12))]


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
