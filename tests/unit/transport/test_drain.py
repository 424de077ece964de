"""Stopping: what was received gets its answers, everything is told, and the time is bounded."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from tests.support import packets
from tests.unit.transport.harness import Server, all_of, on_loop

UP = "im/v1/alice/phone/up"


@on_loop
async def test_answers_that_come_in_time_leave(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect(clean=False)
        client.send(
            packets.publish(UP, b"1", packet_id=1) + packets.publish(UP, b"2", packet_id=2) + packets.subscribe(3, (UP, 0))
        )
        await handler.until(lambda: len(handler.uplinks) == 2)
        stopping = asyncio.create_task(server.transport.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await server.open()
        for link, _, token, *_ in handler.uplinks:
            link.done(token)
        _, seen = await all_of(stopping, client.gone())
        assert sorted((packet.kind, packet.packet_id) for packet in seen) == [
            (packets.PUBACK, 1),
            (packets.PUBACK, 2),
            (packets.SUBACK, 3),
        ]
        assert handler.log[-1] == ("detached", "alice", "phone")


@on_loop
async def test_answers_that_do_not_come_are_waited_for_no_longer_than_agreed(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        handler = server.handler
        handler.answer_at_once = False
        client, idle = await server.connect(), await server.connect("tablet")
        client.send(packets.publish(UP, b"1", packet_id=1))
        await handler.until(lambda: bool(handler.uplinks))
        _, seen, _ = await all_of(server.transport.drain(0.05), client.gone(), idle.gone())
        assert seen == []
        assert {("detached", "alice", "phone"), ("detached", "alice", "tablet")} <= set(handler.log)


@on_loop
async def test_logins_and_silent_sockets_do_not_hold_it_up(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.handler.login_gate = asyncio.Event()
        client, silent = await server.open(), await server.open("websocket")
        client.send(packets.connect("phone", username="alice"))
        await server.counted("connections_accepted", 2)
        await all_of(server.transport.drain(0.05), client.gone(), silent.gone())


@on_loop
async def test_draining_twice_or_before_the_start_does_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    await server.transport.drain(1)
    async with server:
        assert server.transport.listening
        await server.transport.drain(1)
        assert not server.transport.listening


@on_loop
async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=address) as error:
            await Server(tmp_path, bind=address).transport.start()
        assert error.value.errno == errno.EADDRINUSE
