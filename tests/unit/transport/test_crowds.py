"""Plain messages to many: a few in each turn of the loop, and each client's in their order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mqtt_im.transport.embedded.sessions import crowds
from mqtt_im.transport.embedded.sessions.crowds import Crowds
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from tests.unit.transport.harness import Server, all_of, on_loop
from tests.unit.transport.test_plain import OPEN, publish, receive


def test_a_few_in_a_turn_the_oldest_first() -> None:
    async def scenario() -> None:
        got = list[tuple[int, str]]()
        many = Crowds[int, str](lambda session, what: got.append((session, what)))
        many.start(dict.fromkeys(range(3 * crowds.CROWD), "first"))
        many.start(dict.fromkeys(range(2), "second"))
        assert not got
        many.catch_up(1)
        assert got == [(1, "first"), (1, "second")]
        many.catch_up(1)
        turns = 0
        while len(got) < 3 * crowds.CROWD + 2:
            before, turns = len(got), turns + 1
            await asyncio.sleep(0)
            assert len(got) <= before + crowds.CROWD
        assert turns >= 3 and got[-1] == (0, "second")
        many.start({7: "third"})
        many.finish()
        assert got[-1] == (7, "third")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(got) == 3 * crowds.CROWD + 3

    asyncio.run(scenario())


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "MOST", 10)

    async def scenario() -> None:
        got = list[str]()
        many = Crowds[int, str](lambda _, what: got.append(what))
        for name in ("first", "second", "third"):
            many.start(dict.fromkeys(range(6), name))
        assert got == ["first"] * 6 + ["second"] * 6
        many.start(dict.fromkeys(range(20), "large"))
        assert got == ["first"] * 6 + ["second"] * 6 + ["third"] * 6
        many.finish()

    asyncio.run(scenario())


@pytest.mark.parametrize("qos", [0, 1])
@on_loop
async def test_each_client_of_a_crowd_has_its_messages_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    for where in ("crowds", "plain"):
        monkeypatch.setattr(f"mqtt_im.transport.embedded.sessions.{where}.CROWD", 1)
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_connections_per_user": 16}) as server:
        clients = [await server.connect(f"s{number}", clean=number % 2 == 0) for number in range(10)]
        for number, client in enumerate(clients):
            await client.subscribe(("all", qos), (f"one/{number}", qos))
        publisher = await server.connect("p")
        plain, topics = server.hub.plain, [("all", b"1"), ("one/4", b"2"), ("all", b"3"), ("one/4", b"4"), ("one/6", b"5")]
        for topic, payload in topics:  # in one turn of the loop
            plain.publish(PlainMessage(topic, payload, qos, False))
        assert [await receive(clients[4]) for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        assert [await receive(clients[6]) for _ in range(3)] == [b"1", b"3", b"5"]
        assert await all_of(*(receive(client) for client in clients[7:])) == [b"1"] * 3
        assert await all_of(*(receive(client) for client in clients[7:])) == [b"3"] * 3
        plain.publish(PlainMessage("all", b"6", qos, False))
        await clients[0].close()
        await server.handler.until(lambda: ("alice", "s0") not in server.hub.live)
        await publish(publisher, "all", b"7", qos=1)
        assert [await receive(clients[9]) for _ in range(2)] == [b"6", b"7"]


@on_loop
async def test_a_server_that_stops_has_served_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("crowds", "plain"):
        monkeypatch.setattr(f"mqtt_im.transport.embedded.sessions.{where}.CROWD", 1)
    async with Server(tmp_path, plain_topics=OPEN) as server:
        clients = [await server.connect(f"s{number}") for number in range(8)]
        for client in clients:
            await client.subscribe(("all", 1))
        server.hub.plain.publish(PlainMessage("all", b"last", 1, False))
        stopping = asyncio.create_task(server.transport.drain(60.0))
        assert await all_of(*(receive(client) for client in clients)) == [b"last"] * 8
        await stopping
