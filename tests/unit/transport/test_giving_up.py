"""Who hangs up before CONNACK: the login is not gone on with, unless something was to be published."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from mqtt_im.transport.api import Identity, Login
from tests.support import packets
from tests.unit.transport.harness import PATIENCE_S, FakeHandler, Server, on_loop

CONNECT = packets.connect("phone", username="alice")


class Patient(FakeHandler):
    """Lets nobody in before `login_gate` opens, and notes whose login was ended."""

    async def login(self, login: Login) -> Identity:
        self.note("asked")
        try:
            return await super().login(login)
        except asyncio.CancelledError:
            self.note("ended")
            raise


@pytest.mark.parametrize("behind", [b"", packets.subscribe(1, ("im/v1/alice/down", 1))], ids=["alone", "with SUBSCRIBE"])
@pytest.mark.parametrize("cut", [False, True], ids=["closed", "cut"])
@on_loop
async def test_the_login_of_who_hangs_up_is_ended(tmp_path: Path, behind: bytes, cut: bool) -> None:
    handler = Patient()
    handler.login_gate = asyncio.Event()
    async with Server(tmp_path, handler=handler) as server:
        client = await server.open()
        client.send(CONNECT + behind)
        await handler.saw("asked")
        if cut:
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.close()
        await handler.saw("ended")
        await server.counted("closes:lost")
        handler.login_gate.set()
        await server.connect()
        assert [entry[0] for entry in handler.log].count("login") == 1


@on_loop
async def test_what_was_to_be_published_is_worth_the_login(tmp_path: Path) -> None:
    handler = Patient()
    handler.login_gate = asyncio.Event()
    async with Server(tmp_path, handler=handler) as server:
        client = await server.open()
        client.send(CONNECT + packets.publish("im/v1/alice/phone/up", b"{}", packet_id=1))
        client.writer.write_eof()
        await handler.saw("asked")
        handler.login_gate.set()
        assert [packet.kind for packet in await client.gone()] == [packets.CONNACK, packets.PUBACK]


@on_loop
async def test_a_refusal_is_not_cut_off_by_its_own_end(tmp_path: Path) -> None:
    handler = Patient()
    handler.refuse["alice"] = 3
    async with Server(tmp_path, handler=handler) as server:
        client = await server.open()
        client.send(CONNECT)
        assert [packet.body for packet in await client.gone()] == [b"\x00\x03"]
        assert ("ended",) not in handler.log


@on_loop
async def test_a_server_that_stops_waits_for_no_login(tmp_path: Path) -> None:
    """It would use up the time that others need to get their last bytes."""
    handler = Patient()
    async with Server(tmp_path, handler=handler) as server:
        other = await server.connect(username="bob")
        handler.login_gate = asyncio.Event()
        client = await server.open()
        client.send(CONNECT)
        await handler.until(lambda: handler.log.count(("asked",)) == 2)
        await server.transport.drain(PATIENCE_S)
        assert [packet.body for packet in await client.gone()] == [b"\x00\x03"]
        assert await other.gone() == []
