"""Clients of MQTT 5 that come and go, with what their version alone has: aliases, expiry, shares, delayed wills."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any, Final

from tests.soak.churn import Churn, Life
from tests.support import packets, packets5
from tests.support.packets5 import Connack, Publish, Will
from tests.unit.transport.harness import Client

_EXPIRIES: Final = (0, 0, 1, 5, 3600)
_REFUSED: Final = 0x97


def _given(random: Random) -> dict[int, Any]:
    """What a client says of itself."""
    given: dict[int, Any] = {packets5.SESSION_EXPIRY: random.choice(_EXPIRIES)}
    if random.random() < 0.5:
        given[packets5.RECEIVE_MAX] = random.choice((1, 5, 50))
    if random.random() < 0.5:
        given[packets5.ALIAS_MAX] = random.choice((1, 4))
    if random.random() < 0.2:
        given[packets5.MAX_PACKET] = random.choice((100, 300, 1000))
    return given


async def _log_in(client: Client, user: str | None, device: str, **options: Any) -> bool:
    client.send(packets5.connect(device, username=user, **options))
    return Connack.of(await client.packet()).code == 0


async def _read(churn: Churn, client: Client, seconds: float) -> int:
    """Take what comes until nothing does for so long, and acknowledge it, now and then with a refusal; how many there were."""
    number = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(seconds):
                packet = await client.packet()
            if packet.kind == packets.PUBLISH:
                number += 1
                message = Publish.of(packet)
                if message.qos:
                    kind = packets.PUBACK if message.qos == 1 else packets.PUBREC
                    code = _REFUSED if churn.random.random() < 0.05 else None
                    client.send(packets5.acknowledge(kind, message.packet_id, code))
            elif packet.kind == packets.PUBREC and packets5.code_of(packet)[0] < 0x80:
                client.send(packets5.acknowledge(packets.PUBREL, packet.packet_id))
            elif packet.kind == packets.PUBREL:
                client.send(packets5.acknowledge(packets.PUBCOMP, packet.packet_id))
    return number


async def chats5(churn: Churn) -> None:
    """The devices of `chats`, in the other version: their sessions change it all the time."""
    random, user, device = churn.random, churn.user(), churn.random.choice(("phone", "tablet"))
    delay = {packets5.WILL_DELAY: random.choice((0, 1, 600))}
    will = Will(f"im/v1/{user}/{device}/up", b'{"op":"devices"}', properties=delay) if random.random() < 0.3 else None
    async with churn.socket() as client:
        if not await _log_in(client, user, device, clean=random.random() < 0.3, keepalive=30, will=will, given=_given(random)):
            return
        client.send(packets5.subscribe(1, (f"im/v1/{user}/down", 1), (f"im/v1/{user}/{device}/down", 1)))
        up = f"im/v1/{user}/{device}/up"
        for number in range(2, 2 + random.randrange(10)):
            given = {packets5.ALIAS: 1, packets5.CORRELATION: random.randbytes(8)}
            topic = up if number == 2 or random.random() < 0.2 else ""
            client.send(packets5.publish(topic, churn.request(), packet_id=number, given=given))
            churn.counts["messages"] += 1
        churn.counts["items"] += await _read(churn, client, 0.05 + random.random() / 5)
        if random.random() < 0.5:
            ended = {packets5.SESSION_EXPIRY: 0} if random.random() < 0.3 else None
            client.send(packets5.disconnect(random.choice((0, 4)), ended))
            await client.writer.drain()


async def vanishes5(churn: Churn) -> None:
    """Breaks off in the middle of what it sends."""
    user = churn.user()
    async with churn.socket() as client:
        stream = packets5.connect("phone", username=user, clean=False, given=_given(churn.random))
        stream += packets5.subscribe(1, (f"im/v1/{user}/#", 1), given={packets5.SUB_ID: 7})
        stream += b"".join(
            packets5.publish(f"im/v1/{user}/phone/up", churn.request(), packet_id=number, given={packets5.USER: ("a", "b")})
            for number in range(2, 6)
        )
        client.send(stream[: churn.random.randrange(len(stream))])
        await client.writer.drain()


async def speaks_plain_mqtt5(churn: Churn) -> None:
    """Publishes and subscribes plain topics with all that MQTT 5 has for them, in shares that change their members."""
    random = churn.random
    async with churn.socket() as client:
        will = Will(f"open/{random.randrange(20)}/gone", b"", 1, properties={packets5.WILL_DELAY: random.choice((0, 1, 60))})
        if not await _log_in(
            client, churn.user(), f"plain{random.randrange(3)}", clean=random.random() < 0.5, will=will, given=_given(random)
        ):
            return
        options = random.randrange(3) | random.choice((0, 8)) | random.choice((0, 0x10, 0x20))
        given = {packets5.SUB_ID: 1 + random.randrange(9)}
        client.send(packets5.subscribe(1, (f"open/{random.randrange(20)}/#", options), given=given))
        client.send(packets5.subscribe(2, (f"$share/g{random.randrange(3)}/open/#", random.randrange(3))))
        for number in range(3, 3 + random.randrange(8)):
            more: list[tuple[int, Any]] = [(packets5.USER, ("a", "b")), (packets5.CONTENT_TYPE, "x")]
            if random.random() < 0.5:
                more.append((packets5.EXPIRY, random.choice((1, 60))))
            topic = f"open/{random.randrange(20)}/{random.randrange(5)}"
            payload = random.randbytes(random.randrange(300))
            retain = random.random() < 0.2
            client.send(packets5.publish(topic, payload, qos=random.randrange(3), packet_id=number, retain=retain, given=more))
        churn.counts["plain"] += await _read(churn, client, 0.1)
        if random.random() < 0.3:
            client.send(packets5.unsubscribe(3, f"$share/g{random.randrange(3)}/open/#"))
            await client.writer.drain()


LIVES: Final[dict[Life, int]] = {chats5: 8, vanishes5: 2, speaks_plain_mqtt5: 4}
"""Kinds of clients, and how often each comes, beside those of `churn`."""
