"""Plain messages to many: a few in each turn of the loop, and each client's in their order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mqtt_im.transport.embedded.sessions import crowds
from mqtt_im.transport.embedded.sessions.crowds import Crowds
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from tests.support import packets
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


def in_turns_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions are a crowd, and one of them is served in a turn of the loop."""
    for where in ("crowds", "plain"):
        monkeypatch.setattr(f"mqtt_im.transport.embedded.sessions.{where}.CROWD", 1)


@on_loop
async def test_what_many_kept_sessions_get_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_turns_of_one(monkeypatch)
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_connections_per_user": 16}) as server:
        clients = [await server.connect(f"s{number}", clean=False) for number in range(8)]
        for number, client in enumerate(clients):
            await client.subscribe(("all", 1), (f"one/{number}", 1))
        publisher = await server.connect("p", clean=False)
        for number, topic in enumerate(("all", "one/1", "one/6", "all")):
            publisher.send(packets.publish(topic, b"%d" % number, packet_id=1 + number))
        for number in range(4):
            await publisher.expect(packets.PUBACK, 1 + number)
        assert [await receive(clients[1]) for _ in range(3)] == [b"0", b"1", b"3"]
        assert [await receive(clients[6]) for _ in range(3)] == [b"0", b"2", b"3"]
        assert await all_of(*(receive(client) for client in clients[2:6])) == [b"0"] * 4
        await clients[7].close()  # it has acknowledged nothing
        again = await server.connect("s7", clean=False, present=True)
        assert [(await again.message()).payload for _ in range(2)] == [b"0", b"3"]


@on_loop
async def test_all_kept_sessions_of_a_crowd_have_a_message_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_turns_of_one(monkeypatch)
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_connections_per_user": 16}) as server:
        clients = [await server.connect(f"s{number}", clean=False) for number in range(6)]
        for client in clients:
            await client.subscribe(("all", 2))
        publisher = await server.connect("p", clean=False)
        with server.full_disk():
            publisher.send(packets.publish("all", b"lost", qos=2, packet_id=3))
            assert await publisher.gone() == []
        publisher = await server.connect("p", clean=False, present=True)
        publisher.send(packets.publish("all", b"found", qos=2, packet_id=3, dup=True))
        await publisher.expect(packets.PUBREC, 3)
        assert await all_of(*(receive(client) for client in clients)) == [b"found"] * 6
        publisher.send(packets.publish("all", b"found", qos=2, packet_id=3, dup=True))
        await publisher.expect(packets.PUBREC, 3)
        await clients[0].silent()


@on_loop
async def test_a_kept_session_that_ends_while_it_waits_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_turns_of_one(monkeypatch)
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_connections_per_user": 16}) as server:
        clients = [await server.connect(f"s{number}", clean=False) for number in range(6)]
        for client in clients:
            await client.subscribe(("all", 1))
        plain, sessions = server.hub.plain, server.hub.sessions
        plain.publish(PlainMessage("all", b"1", 1, False))
        ended, left = (sessions.in_memory["alice", name] for name in ("s0", "s1"))
        sessions.discard(ended)
        plain.unsubscribe(left, "all")
        assert not left.idle  # it was published before
        assert await all_of(*(receive(client) for client in clients[1:])) == [b"1"] * 5
        await server.stored()
        store = server.hub.ground.store
        assert not store._query("SELECT 1 FROM queued WHERE session = ?", (ended.id,))
        assert left.unwritten is None


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
