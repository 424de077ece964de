"""What was measured to be wrong with stock amqtt, one scenario each: it fails there and passes here.

The run on stock amqtt is an expected failure that must fail: when upstream mends one, this page says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import packets
from tests.support.packets import Will, packet, text
from tests.unit.transport.harness import Client, Server, on_loop
from tests.unit.transport.stock import Stock

Make = Callable[..., Any]
Scenario = Callable[[Make], Awaitable[None]]

STOCK_PATIENCE_S = 0.7
"""Stock amqtt fails most scenarios by not doing what is waited for."""
STOCK_KEEP_ALIVE_PATIENCE_S = 3.0

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def publish(client: Client, topic: str, payload: bytes, *, retain: bool = False, packet_id: int = 1) -> None:
    client.send(packets.publish(topic, payload, packet_id=packet_id, retain=retain))
    await client.expect(packets.PUBACK, packet_id)


@scenario
async def unacknowledged_messages_are_sent_again_on_reconnect(make: Make) -> None:
    async with make() as server:
        subscriber, publisher = await server.connect("s", clean=False), await server.connect("p")
        await subscriber.subscribe(("a", 1))
        await publish(publisher, "a", b"x")
        first = await subscriber.message()
        await subscriber.close()
        subscriber = await server.connect("s", clean=False, present=True)
        again = await subscriber.message()
        assert (again.payload, again.dup, again.packet_id) == (b"x", True, first.packet_id)


@scenario
async def a_queue_that_was_read_in_part_is_not_lost(make: Make) -> None:
    async with make() as server:
        subscriber, publisher = await server.connect("s", clean=False), await server.connect("p")
        await subscriber.subscribe(("a", 1))
        await subscriber.disconnect()
        for number in range(50):
            await publish(publisher, "a", b"%d" % number)
        subscriber = await server.connect("s", clean=False, present=True)
        seen = set()
        for _ in range(10):
            message = await subscriber.message()
            subscriber.send(packets.acknowledge(packets.PUBACK, message.packet_id))
            seen.add(message.payload)
        subscriber.send(packets.packet(packets.DISCONNECT))
        await subscriber.gone()
        subscriber = await server.connect("s", clean=False, present=True)
        while len(seen) < 50:
            message = await subscriber.message()
            seen.add(message.payload)
            subscriber.send(packets.acknowledge(packets.PUBACK, message.packet_id))


@scenario
async def a_clean_take_over_closes_the_old_connection(make: Make) -> None:
    async with make() as server:
        old = await server.connect("s")
        await server.connect("s")
        assert await old.gone() == []


@scenario
async def a_kept_take_over_leaves_the_new_connection_working(make: Make) -> None:
    async with make() as server:
        old, publisher = await server.connect("s", clean=False), await server.connect("p")
        await old.subscribe(("a", 0))
        new = await server.connect("s", clean=False, present=True)
        await old.gone()
        await publish(publisher, "a", b"x")
        assert (await new.message()).payload == b"x"


@scenario
async def a_wrong_password_does_nothing_to_the_victim(make: Make) -> None:
    async with make() as server:
        victim, publisher = await server.connect("s", clean=False), await server.connect("p")
        await victim.subscribe(("a", 0))
        thief = await server.open()
        thief.send(packets.connect("s", username="alice", password="wrong"))
        await thief.gone()
        await publish(publisher, "a", b"x")
        assert (await victim.message()).payload == b"x"


@scenario
async def keep_alive_is_enforced(make: Make) -> None:
    async with make() as server:
        client = await server.connect("s", keepalive=1)
        await client.gone()


@scenario
async def a_packet_without_bounds_is_refused_by_its_header(make: Make) -> None:
    async with make() as server:
        client = await server.connect("s")
        client.send(b"\x30\xff\xff\xff\x7f" + b"x" * 1000)
        await client.gone()


@scenario
async def a_silent_socket_is_closed(make: Make) -> None:
    async with make(connect_timeout_s=0.05) as server:
        client = await server.open()
        await client.gone()


@scenario
async def one_connection_too_many_is_answered(make: Make) -> None:
    async with make(max_connections=1) as server:
        await server.connect("s")
        client = await server.open()
        client.send(packets.connect("t", username="bob"))
        assert [answer.body for answer in await client.gone()] == [b"\x00\x03"]


@scenario
async def sessions_queues_and_retained_messages_survive_a_restart(make: Make) -> None:
    async with make() as server:
        client = await server.connect("s", clean=False)
        await client.subscribe(("a", 1))
        await client.disconnect()
        publisher = await server.connect("p")
        await publish(publisher, "a", b"queued")
        await publish(publisher, "r", b"retained", retain=True)
    async with make() as server:
        client = await server.connect("s", clean=False, present=True)
        assert (await client.message()).payload == b"queued"
        await client.subscribe(("r", 0))
        assert (await client.message()).payload == b"retained"


@scenario
async def retained_messages_do_not_leak_to_who_did_not_ask(make: Make) -> None:
    async with make() as server:
        alice, bob = await server.connect("s", "alice"), await server.connect("t", "bob", clean=False)
        await publish(alice, "secret", b"for alice", retain=True)
        await alice.subscribe(("secret", 0))
        assert (await alice.message()).payload == b"for alice"
        await bob.disconnect()
        bob = await server.connect("t", "bob", clean=False, present=True)
        await bob.subscribe(("public", 0))
        await bob.silent()


@scenario
async def messages_for_who_was_away_are_not_marked_as_retained(make: Make) -> None:
    async with make() as server:
        subscriber, publisher = await server.connect("s", clean=False), await server.connect("p")
        await subscriber.subscribe(("a", 1))
        await subscriber.disconnect()
        await publish(publisher, "a", b"x")
        subscriber = await server.connect("s", clean=False, present=True)
        assert not (await subscriber.message()).retain


@scenario
async def shared_subscriptions_are_refused_rather_than_never_fed(make: Make) -> None:
    async with make() as server:
        client = await server.connect("s")
        assert await client.subscribe(("$share/group/a", 1)) == [0x80]


@scenario
async def a_will_is_checked_against_the_publish_rules(make: Make) -> None:
    async with make() as server:
        watcher = await server.connect("w")
        await watcher.subscribe(("#", 0), ("$closed", 0))
        client = await server.connect("s", will=Will("$closed", b"not allowed"))
        await client.close()
        await server.connect("s")
        await watcher.silent()


@scenario
async def mqtt_5_is_spoken(make: Make) -> None:
    async with make() as server:
        client = await server.open()
        client.send(packet(1, text("MQTT") + b"\x05\x02\0\0\0" + text("a")))
        assert (await client.expect(packets.CONNACK)).body[:2] == b"\0\0"


@scenario
async def mqtt_3_1_learns_that_it_is_not_spoken(make: Make) -> None:
    async with make() as server:
        client = await server.open()
        client.send(packets.connect("a", protocol="MQIsdp", level=3))
        assert [answer.body for answer in await client.gone()] == [b"\x00\x01"]


BAD_PACKETS = {
    "bad UTF-8 in a topic": packet(3, text(b"a\xff") + b"\0\1x", 2),
    "NUL in a topic": packet(3, text("a\0b") + b"\0\1x", 2),
    "empty topic": packet(3, text("") + b"\0\1x", 2),
    "packet id 0": packet(3, text("a") + b"\0\0x", 2),
    "QoS 3": packet(3, text("a") + b"\0\1x", 6),
    "DUP at QoS 0": packet(3, text("a") + b"x", 8),
    "SUBSCRIBE without filters": packet(8, b"\0\1", 2),
    "SUBSCRIBE at QoS 3": packet(8, b"\0\1" + text("a") + b"\3", 2),
    "SUBSCRIBE with wrong flags": packet(8, b"\0\1" + text("a") + b"\1", 0),
    "UNSUBSCRIBE without filters": packet(10, b"\0\1", 2),
    "PUBREL with wrong flags": packet(6, b"\0\1", 0),
    "PINGREQ with a body": packet(12, b"x"),
    "a packet of a server": packet(2, b"\0\0"),
}


def _bad(data: bytes) -> Scenario:
    async def bad_packet(make: Make) -> None:
        async with make() as server:
            client = await server.connect("s")
            client.send(data)
            assert await client.gone() == []

    return bad_packet


SCENARIOS.update({f"{name} closes the connection": _bad(data) for name, data in BAD_PACKETS.items()})


@pytest.mark.parametrize("name", SCENARIOS)
@on_loop
async def test_ours(tmp_path: Path, name: str) -> None:
    await SCENARIOS[name](lambda **limits: Server(tmp_path, plain_topics=("#",), limits=limits))


@on_loop
async def test_stock_amqtt_does_work_in_this_harness(tmp_path: Path) -> None:
    async with Stock(tmp_path) as server:
        client = await server.connect("s")
        assert await client.subscribe(("a", 1)) == [1]
        client.send(packets.publish("a", b"x", qos=0))
        assert (await client.message()).payload == b"x"
        await client.silent()


@pytest.mark.xfail(strict=True, raises=(AssertionError, TimeoutError, EOFError))
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCENARIOS)
def test_stock_amqtt(tmp_path: Path, name: str) -> None:
    def make(max_connections: int = 0, **_: Any) -> Stock:
        return Stock(tmp_path, max_connections=max_connections)

    async def run() -> None:
        patience = STOCK_KEEP_ALIVE_PATIENCE_S if name == keep_alive_is_enforced.__name__ else STOCK_PATIENCE_S
        async with asyncio.timeout(patience):
            await SCENARIOS[name](make)

    with asyncio.Runner() as runner:
        runner.run(run())
