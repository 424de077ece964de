"""Everybody comes back at once, each at the cost of an argon2: all are served, and nothing is done for who has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from mqtt_im.accounts import passwords
from mqtt_im.accounts.table import Accounts
from mqtt_im.bridge.logins.auth import Authenticator
from mqtt_im.bridge.logins.password_pool import PasswordPool
from mqtt_im.config import Config
from mqtt_im.metrics import Metrics
from mqtt_im.transport.api import Identity, Login
from tests.support import packets
from tests.unit.transport.harness import Client, FakeHandler, Server, on_loop

COUNT = 200
USERS = [f"user{number}" for number in range(COUNT)]
THREADS = 2


class Storm(FakeHandler):
    """Logs in with passwords, which are looked at as soon as `gate` is open."""

    def __init__(self, accounts: Accounts) -> None:
        super().__init__()
        self.authenticator = Authenticator(Config(), accounts, Metrics())
        self.authenticator._pool = self.pool = PasswordPool(THREADS, patience_s=60.0)
        self.gate = threading.Event()
        self.verified: list[bytes] = []

    async def login(self, login: Login) -> Identity:
        self.changed.set()
        try:
            return await self.authenticator.login(login)
        finally:
            self.changed.set()

    async def queue(self, length: int) -> None:
        """Wait until so many logins wait for their turn."""
        await self.until(lambda: self.pool.waiting == length)

    def verify(self, password: bytes, password_hash: str) -> bool:
        self.gate.wait(60)
        self.verified.append(password)
        return _verify(password, password_hash)


_verify = passwords.verify_password


@asynccontextmanager
async def storm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Server, Storm]]:
    """A server on which everybody has an account, and whose passwords cost as little as argon2 can."""
    monkeypatch.setattr(passwords, "_hasher", Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1))
    accounts = Accounts(folder / "accounts")
    for user in USERS:
        accounts.add(user, f"of {user}")
    handler = Storm(accounts)
    monkeypatch.setattr(passwords, "verify_password", handler.verify)
    try:
        async with Server(folder, handler=handler) as server:
            yield server, handler
    finally:
        handler.gate.set()
        handler.authenticator.close()
        accounts.close()


async def come(server: Server, user: str) -> Client:
    client = await server.open()
    client.send(packets.connect("phone", username=user, password=f"of {user}"))
    return client


async def serve(client: Client, user: str) -> None:
    assert (await client.expect(packets.CONNACK)).body == b"\0\0"
    assert await client.subscribe((f"im/v1/{user}/down", 1)) == [1]


@on_loop
async def test_all_are_served_and_a_second_time_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with storm(tmp_path, monkeypatch) as (server, handler):
        for _ in range(2):
            clients = await asyncio.gather(*(come(server, user) for user in USERS))
            if not handler.verified:
                await handler.queue(COUNT - THREADS)
            handler.gate.set()
            await asyncio.gather(*map(serve, clients, USERS))
            assert len(handler.verified) == COUNT
            for client in clients:
                await client.disconnect()


@on_loop
async def test_who_gives_up_costs_nothing_and_is_served_when_he_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storm(tmp_path, monkeypatch) as (server, handler):
        clients = [await come(server, user) for user in USERS]
        await handler.queue(COUNT - THREADS)
        for client in clients[::2]:
            client.writer.close()
        await handler.queue(COUNT // 2 - THREADS // 2)
        handler.gate.set()
        await asyncio.gather(*map(serve, clients[1::2], USERS[1::2]))
        begun = {f"of {user}".encode() for user in USERS[:THREADS]}
        assert set(handler.verified) == {f"of {user}".encode() for user in USERS[1::2]} | begun
        back = [await come(server, user) for user in USERS[::2]]
        await asyncio.gather(*map(serve, back, USERS[::2]))
        assert len(handler.verified) == COUNT, "nobody's password was looked at twice"


@on_loop
async def test_who_is_told_to_come_back_is_served_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with storm(tmp_path, monkeypatch) as (server, handler):
        handler.pool._patience_s = 0.0
        clients = [await come(server, user) for user in USERS]
        for client in clients:
            assert [packet.body for packet in await client.gone()] == [b"\0\x03"]
        handler.pool._patience_s = 60.0
        back = [await come(server, user) for user in USERS]
        handler.gate.set()
        await asyncio.gather(*map(serve, back, USERS))
        assert len(handler.verified) == COUNT, "nobody's password was looked at twice"
