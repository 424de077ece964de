"""The embedded transport on loopback sockets, with a bridge that only writes down what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self

import uvloop

from mqtt_im.config import LimitsConfig, MqttConfig, TlsConfig, WebsocketConfig
from mqtt_im.transport.api import Extra, Identity, Link, Login, LoginRefused
from mqtt_im.transport.embedded import EmbeddedTransport
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from tests.support import packets, packets5
from tests.support.packets import Packet, Parser, Publish, Will

NOTHING_WAITS = 4711
"""A packet identifier that nothing waits for."""
PATIENCE_S = 60.0
"""How long a test waits for what must happen; only a failing test ever waits that long."""

PLAIN_LOOP = "MQTT_IM_TEST_ASYNCIO"
"""Set in the environment: the tests run on asyncio's own loop instead of uvloop's."""

P = ParamSpec("P")


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an `async` test on a loop of its own, on which no exception may go unseen and no task may stay."""

    @functools.wraps(test)
    def run(*arguments: P.args, **keywords: P.kwargs) -> None:
        complaints: list[str] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
            await test(*arguments, **keywords)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"

        with asyncio.Runner(loop_factory=None if os.environ.get(PLAIN_LOOP) else uvloop.new_event_loop) as runner:
            runner.run(main())
        assert not complaints, complaints[0]

    # pytest would take the wrapped function's coroutine for the test.
    del run.__wrapped__
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


class FakeHandler:
    """Lets everybody in under the names they give, and writes down the rest."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.uplinks: list[tuple[Link, bytes, int, int, bool]] = []
        self.extras: list[Extra | None] = []
        self.answer_at_once = True
        self.refuse: dict[str, int] = {}
        self.watchable: set[str] = set()
        self.quiet: dict[str, asyncio.Event] = {}
        self.login_gate: asyncio.Event | None = None
        self.registering = 0
        """Devices that were or are to be registered."""
        self.registered = asyncio.Event()
        self.registered.set()
        self.links: list[Link] = []
        self.changed = asyncio.Event()
        self.on_attached: Callable[[Link], object] = lambda _: None

    def told(self) -> tuple[Any, ...]:
        """What was noted last."""
        return self.log[-1]

    def note(self, *entry: Any) -> None:
        self.log.append(entry)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was noted makes the condition true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def saw(self, *entry: Any) -> None:
        await self.until(lambda: entry in self.log)

    async def login(self, login: Login) -> Identity:
        if self.login_gate is not None:
            await self.login_gate.wait()
        name = login.certificate_user or login.username
        if login.password == b"wrong":
            raise LoginRefused(4, "a wrong password")
        if name in self.refuse:
            raise LoginRefused(self.refuse[name], "told to")
        self.note("login", name, login.client_id, login.password)
        if name is None:
            return Identity(None, None)
        device = login.client_id.removeprefix(f"{name}:")
        return Identity(name, device if device and " " not in device else None)

    async def quiesced(self, user: str, device: str) -> None:
        self.note("quiesced", user, device)
        if device in self.quiet:
            await self.quiet[device].wait()

    def attached(self, link: Link) -> None:
        self.links.append(link)
        self.note("attached", link.user, link.device, link.clean, link.resumed, link.user_qos, link.device_qos)
        self.on_attached(link)

    async def register(self, link: Link) -> bool:
        self.registering += 1
        self.changed.set()
        await self.registered.wait()
        return True

    def subscribe(self, link: Link, topic_filter: str) -> None:
        self.note("subscribe", link.device, topic_filter, link.user_qos, link.device_qos)

    def unsubscribed(self, link: Link) -> None:
        self.note("unsubscribed", link.device, link.user_qos, link.device_qos)

    async def may_watch(self, user: str, other: str) -> bool:
        return other in self.watchable

    def watch(self, link: Link, other: str, qos: int, tell: bool = True) -> None:
        self.note("watch", link.device, other, qos)

    def unwatch(self, link: Link, other: str) -> None:
        self.note("unwatch", link.device, other)

    def uplink(self, link: Link, payload: bytes, token: int, packet_id: int, dup: bool, extra: Extra | None = None) -> None:
        self.extras.append(extra)
        self.uplinks.append((link, payload, token, packet_id, dup))
        self.note("uplink", link.device, payload, packet_id, dup)
        if self.answer_at_once and token:
            link.done(token)

    def rate_limited(
        self, link: Link, payload: bytes, token: int, retry_after: float, dup: bool, extra: Extra | None = None
    ) -> None:
        self.note("rate_limited", link.device, payload)
        if link.version == 5:
            link.refuse(token, 0x97, "rate_limited: too fast")
        else:
            link.fail(token)

    def acked(self, link: Link, packet_ids: Sequence[int]) -> int:
        for packet_id in packet_ids:
            self.note("acked", link.device, packet_id)
        return sum(packet_id != NOTHING_WAITS for packet_id in packet_ids)

    def writable(self, link: Link) -> None:
        self.note("writable", link.device)

    def detached(self, link: Link) -> None:
        self.note("detached", link.user, link.device)

    def will(self, user: str, device: str, payload: bytes, expiry: int | None = None) -> None:
        self.note("will", user, device, payload)

    def moved(self, user: str, device: str) -> None:
        """There is no other node."""

    async def released(self, user: str, device: str) -> None:
        self.note("released", user, device)

    def session_ended(self, user: str, device: str) -> None:
        self.note("session_ended", user, device)


class Client:
    """Sends the bytes it is given, and reads packets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = Parser()
        self._packets: list[Packet] = []

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def packet(self) -> Packet:
        """The next packet. Raises `EOFError` where the server closed the connection before one was complete."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._packets:
                try:
                    data = await self.reader.read(65_536)
                except ConnectionError as error:
                    raise EOFError from error
                if not data:
                    raise EOFError
                self._packets += self._parser.feed(data)
            return self._packets.pop(0)

    async def expect(self, kind: int, packet_id: int | None = None) -> Packet:
        packet = await self.packet()
        assert packet.kind == kind, packet
        if packet_id is not None:
            assert packet.packet_id == packet_id, packet
        return packet

    async def message(self) -> Publish:
        return Publish.of(await self.expect(packets.PUBLISH))

    async def gone(self) -> list[Packet]:
        """Wait for the server to close the connection; returns what came before."""
        seen = []
        try:
            while True:
                seen.append(await self.packet())
        except EOFError:
            await self.close()
            return seen

    async def silent(self) -> None:
        """Nothing else has been sent: PINGRESP is the next packet."""
        self.send(packets.packet(packets.PINGREQ))
        await self.expect(packets.PINGRESP)

    async def subscribe(self, *filters: tuple[str, int], packet_id: int = 1) -> list[int]:
        self.send(packets.subscribe(packet_id, *filters))
        return (await self.expect(packets.SUBACK, packet_id)).codes

    async def close(self) -> None:
        """Go without DISCONNECT."""
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def disconnect(self) -> None:
        self.send(packets.packet(packets.DISCONNECT))
        assert await self.gone() == []


class Client5(Client):
    """The same for MQTT 5."""

    def __init__(self, opened: Client) -> None:
        super().__init__(opened.reader, opened.writer)
        self.connack: packets5.Connack

    async def receive(self) -> packets5.Publish:
        return packets5.Publish.of(await self.expect(packets.PUBLISH))

    async def subscribe(self, *filters: tuple[str, int], packet_id: int = 1, given: packets5.Given = None) -> list[int]:
        self.send(packets5.subscribe(packet_id, *filters, given=given))
        return packets5.codes_of(await self.expect(packets.SUBACK, packet_id))

    async def acknowledged(self, kind: int, packet_id: int) -> tuple[int, dict[int, Any]]:
        return packets5.code_of(await self.expect(kind, packet_id))

    async def goodbye(self) -> int:
        """The reason code with which the server closes the connection next."""
        return packets5.goodbye(await self.gone())


class Clients:
    """Opens clients to a server and closes those that are left."""

    def __init__(self) -> None:
        self._clients: list[Client] = []

    def address(self, listener: str) -> tuple[str, int]:
        """Where the server listens."""
        raise NotImplementedError

    async def close_clients(self) -> None:
        for client in self._clients:
            await client.close()
        self._clients.clear()

    async def open(self, listener: str = "mqtt", **options: Any) -> Client:
        """A socket that has said nothing yet."""
        host, port = self.address(listener)
        client = Client(*await asyncio.open_connection(host, port, **options))
        self._clients.append(client)
        return client

    async def connect(
        self,
        client_id: str = "phone",
        username: str | None = "alice",
        *,
        clean: bool = True,
        keepalive: int = 0,
        will: Will | None = None,
        present: bool = False,
    ) -> Client:
        """A client that was let in, whose CONNACK said `present`."""
        client = await self.open()
        client.send(packets.connect(client_id, username=username, clean=clean, keepalive=keepalive, will=will))
        connack = await client.expect(packets.CONNACK)
        assert connack.body == bytes((present, 0))
        return client

    async def connect5(
        self, client_id: str = "phone", username: str | None = "alice", *, present: bool = False, **options: Any
    ) -> Client5:
        """A client of MQTT 5 that was let in, whose CONNACK said `present`; `options` are those of `packets5.connect`."""
        client = Client5(await self.open())
        client.send(packets5.connect(client_id, username=username, **options))
        client.connack = packets5.Connack.of(await client.expect(packets.CONNACK))
        assert (client.connack.code, client.connack.present) == (0, present), client.connack
        return client


class Server(Clients):
    """`EmbeddedTransport` in a folder, as an async context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: Mapping[str, Any] | None = None,
        plain_topics: tuple[str, ...] = (),
        tls: TlsConfig | None = None,
        websocket: Mapping[str, Any] | None = None,
        plugins: Mapping[str, Mapping[str, Any]] | None = None,
        handler: FakeHandler | None = None,
        bind: str = "127.0.0.1:0",
        proxy_protocol: bool = False,
        trusted_proxies: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.folder = folder
        self.handler = handler or FakeHandler()
        self.counts: Counter[str] = Counter()
        options: dict[str, Any] = {"requests_per_second": 100_000, **(limits or {})}
        self.transport = EmbeddedTransport(
            self.handler,
            MqttConfig(bind=bind, plain_topics=plain_topics, tls=tls or TlsConfig(), proxy_protocol=proxy_protocol),
            WebsocketConfig(bind="127.0.0.1:0", **(websocket or {})),
            LimitsConfig(**options),
            folder,
            self._count,
            trusted_proxies=trusted_proxies,
            plugins=plugins,
        )
        self.hub = self.transport._hub

    def address(self, listener: str) -> tuple[str, int]:
        return self.transport.addresses[listener]

    def _count(self, name: str, amount: float = 1, **labels: str) -> None:
        for key in (name, *(f"{name}:{value}" for value in labels.values())):
            self.counts[key] += int(amount)
        self.handler.changed.set()

    async def counted(self, name: str, number: int = 1) -> None:
        await self.handler.until(lambda: self.counts[name] >= number)

    async def __aenter__(self) -> Self:
        await self.transport.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close_clients()
        await self.transport.drain(PATIENCE_S)
        assert not self.hub.sockets
        assert not self.hub.live

    @contextlib.contextmanager
    def broken_disk(self) -> Iterator[None]:
        """Reading fails while this lasts."""
        store = self.hub.ground.store
        query = store._query

        def fail(sql: str, parameters: tuple[object, ...]) -> Any:
            raise StoreFailed("disk I/O error")

        store._query = fail  # type: ignore[method-assign]
        try:
            yield
        finally:
            store._query = query  # type: ignore[method-assign]

    async def stored(self) -> None:
        """Wait until everything that was written so far is on disk."""
        assert await self.hub.sessions.committed()

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Transactions fail while this lasts."""
        store = self.hub.ground.store
        commit = store._commit

        def fail(statements: list[Any]) -> bool:
            store._failure = "disk full"
            return not statements

        store._commit = fail  # type: ignore[method-assign]
        try:
            yield
        finally:
            store._commit = commit  # type: ignore[method-assign]

    def copy_of_disk(self, folder: Path) -> Path:
        """What a power cut would leave of the folder now."""
        return Path(shutil.copytree(self.folder, folder))


async def all_of(*waits: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*waits))
