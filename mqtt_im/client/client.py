"""The client: what an app talks to."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from mqtt_im.protocol.names import is_device, is_user

from .asking import Asking
from .changes import ABSENT, Changes
from .core.inbox import Inbox
from .core.limits import Limits
from .core.liveness import Path as NetworkPath
from .core.outbox import Outbox
from .core.session import Session
from .engine import Engine
from .errors import ClientError, Offline, Refused
from .events import Event
from .files import Files
from .iterators import Bell, Reader
from .message import Message
from .network.addresses import parsed
from .network.connector import Connector, Password, ask_password
from .outgoing import Outgoing
from .payload import Codec
from .questions import ANSWER_S, Questions
from .reading import Reading
from .sending import Sending
from .states import State
from .store.interface import Loaded, Store
from .store.memory import MemoryStore
from .store.writer import Writer

_log = logging.getLogger(__name__)


class _Open:
    """What there is while a client is open."""

    def __init__(self, engine: Engine, writer: Writer, sending: Sending) -> None:
        self.engine = engine
        self.writer = writer
        self.sending = sending
        self.asking = Asking(engine)
        self.reading = Reading(engine)
        self.tasks: set[asyncio.Task[None]] = set()


class Client(Changes, Questions):
    """A device of a user on an MQTT-IM server.

    `url` is `mqtt://`, `mqtts://`, `ws://` or `wss://` and a host, or a list of such, which are raced. `password` is a text,
    or a function, plain or async, that is asked before each connect (a plain one in a thread). `device` is this device's name,
    made up and kept in the store where it is not given. `store` is the path of a SQLite file that nobody else has open, or None
    for a client that remembers nothing. `tls` replaces the system's certificates. `keepalive` is what CONNECT says, in seconds
    (pings adapt below it; 0: none), `connect_timeout` bounds each attempt, `send_timeout` gives up what has no answer after so
    many seconds (None: never), `outbox_limit` bounds what waits. `codec` is `"auto"` (MessagePack), `"msgpack"` or `"json"`;
    `synchronous` `"full"`, which survives a power cut, or `"normal"`, which survives a killed process. `http` is the URL of the
    server's HTTP side, for files. `prefix` is the server's `mqtt.prefix`.

    Raises `ValueError` for what can't be meant.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        user: str,
        password: Password = None,
        device: str | None = None,
        store: str | Path | None = None,
        tls: ssl.SSLContext | None = None,
        keepalive: int = 600,
        connect_timeout: float = 10.0,
        send_timeout: float | None = None,
        outbox_limit: int = 10_000,
        codec: Literal["auto", "json", "msgpack"] = "auto",
        synchronous: Literal["full", "normal"] = "full",
        http: str | None = None,
        prefix: str = "im/v1",
    ) -> None:
        if not is_user(user):
            raise ValueError(f"{user!r} is no user id: 1 to 64 of A-Z a-z 0-9 _ . -")
        if device is not None and not is_device(device):
            raise ValueError(f"{device!r} is no device id: 1 to 64 of A-Z a-z 0-9 _ . -")
        if codec not in ("auto", "json", "msgpack") or synchronous not in ("full", "normal"):
            raise ValueError("codec is 'auto', 'json' or 'msgpack', synchronous is 'full' or 'normal'")
        if not 0 <= keepalive <= 65_535:
            raise ValueError("keepalive is 0 to 65535 seconds")
        if connect_timeout <= 0 or (send_timeout is not None and send_timeout <= 0) or outbox_limit < 1:
            raise ValueError("connect_timeout and send_timeout are seconds above 0, outbox_limit is at least 1")
        self.user = user
        self._addresses = parsed(url)
        self._password = password
        self._device = device
        self._store = None if store is None else Path(store)
        self._tls = tls
        self._keepalive = keepalive
        self._connect_timeout = connect_timeout
        self._send_timeout = send_timeout
        self._outbox_limit = outbox_limit
        self._codec: Codec = "json" if codec == "json" else "msgpack"
        self._synchronous: Literal["full", "normal"] = synchronous
        self._files = None if http is None else Files(http, user, tls)
        self._prefix = prefix
        self._state = State("closed")
        self._bell = Bell()
        self._turn = asyncio.Lock()
        self._opened: _Open | None = None
        self._shutting: asyncio.Future[None] | None = None

    # Life

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def device(self) -> str:
        """This device's name. Raises `ClientError` before the store was opened, where it was not given."""
        if self._device is None:
            raise ClientError("the device is known once the store is open: use `async with`, or `connect()`")
        return self._device

    async def connect(self) -> None:
        """The store is open, and connecting has begun; does not wait for the network. Where it was refused, tries again.

        Raises `StoreInUse`, `StoreUnusable`.
        """
        async with self._turn:
            await self._shut_down()
            if self._opened is not None:
                if self._state == "refused":
                    self._opened.engine.kick()
                return
            writer = Writer(self._make_store())
            loaded = await writer.start(self.user, self._device)
            self._device = loaded.device
            opened = self._open(writer, loaded)
            await opened.sending.load(loaded.rows)
            self._opened = opened
            self._become(self._opened.engine.state)
            self._opened.engine.start()

    def _make_store(self) -> Store:
        if self._store is None:
            return MemoryStore()
        from .store.sqlite import SqliteStore

        return SqliteStore(self._store, self._synchronous)

    def _open(self, writer: Writer, loaded: Loaded) -> _Open:
        notes = loaded.notes
        session = Session(
            self.user,
            self.device,
            Outbox(last_n=loaded.last_n),
            Inbox(loaded.marks),
            limits=Limits(**notes.get("limits", {})),
            codec=self._codec,
            prefix=self._prefix,
        )

        def note(name: str, value: Any) -> None:
            writer.call(lambda store: store.note(name, value))

        connector = Connector(
            self._addresses, self.user, self.device, self._password, self._tls, self._keepalive, notes.get("versions", {})
        )
        connector.on_learnt = lambda versions: note("versions", versions)
        paths = {name: NetworkPath(**path) for name, path in notes.get("paths", {}).items()}
        engine = Engine(session, writer, connector, keepalive=self._keepalive, connect_timeout=self._connect_timeout, paths=paths)
        sending = Sending(engine, writer, codec=self._codec, limit=self._outbox_limit, follow=self._follow)
        opened = _Open(engine, writer, sending)

        def reply(request_id: str, data: dict[str, Any]) -> None:
            if not opened.asking.reply(request_id, data):
                sending.answered_late(request_id, data)

        def happened(event: dict[str, Any] | None) -> None:
            if event is not None and event["op"] == "receipt":
                marks = event.get("delivered"), event.get("read")
                sending.receipts.mark(str(event.get("conv")), str(event.get("by")), *marks)
            opened.reading.news()

        def online(_welcome: dict[str, Any]) -> None:
            note("limits", asdict(session.limits))
            opened.asking.online()
            if sending.receipts.conversations():
                self._spawn(self._refresh_receipts)

        engine.on_state = self._become
        engine.on_answered = sending.answered
        engine.on_failed = sending.failed
        engine.on_reply = reply
        engine.on_watched = opened.asking.watched
        engine.on_event = happened
        engine.on_online = online
        engine.on_paths = lambda: note("paths", {name: asdict(path) for name, path in paths.items()})
        return opened

    @property
    def _now_open(self) -> _Open:
        if self._opened is None:
            raise ClientError("this client is not open: use `async with`, or `connect()`")
        return self._opened

    async def close(self) -> None:
        """Disconnected, and the store is free for others. What is unsent stays in the outbox, a message in hand is not done."""
        async with self._turn:
            opened, self._opened = self._opened, None
            if opened is not None:
                self._shutting = asyncio.ensure_future(self._shut(opened))
            await self._shut_down()

    async def _shut_down(self) -> None:
        """Returns when a close that has begun is over, whoever has called that off meanwhile."""
        if self._shutting is not None:
            await asyncio.shield(self._shutting)
            self._shutting = None

    async def _shut(self, opened: _Open) -> None:
        for task in opened.tasks:
            task.cancel()
        await asyncio.wait([opened.engine.save()])
        await opened.engine.stop()
        await opened.writer.close()
        closed = Offline("the client was closed; what has no answer stays in its outbox")
        opened.reading.close()
        opened.asking.close(closed)
        await opened.sending.close(closed)
        self._become(State("closed"))

    # States

    @property
    def state(self) -> State:
        """Where it stands: `connecting`, `online`, `waiting`, `refused` or `closed`."""
        return self._state

    def states(self) -> Reader[State]:
        """The present state first, then the newest after each change; ends with `closed`."""
        shown: list[State] = []

        async def take() -> State:
            if shown and shown[-1] == "closed":
                raise StopAsyncIteration
            while shown and shown[-1] is self._state:
                await self._bell.wait()
            shown[:] = [self._state]
            return self._state

        return Reader(take, lambda: None)

    async def online(self, timeout: float | None = None) -> None:
        """Returns once it is online. Raises `Refused` where the server does not take it, `TimeoutError` after `timeout` s."""
        async with asyncio.timeout(timeout):
            while self._state != "online":
                if self._state == "refused":
                    raise Refused(self._state.reason or "refused")
                if self._state == "closed":
                    raise Offline("the client is closed")
                await self._bell.wait()

    def network_changed(self) -> None:
        """The machine has another network: try now, and find out whether an old line is still alive."""
        self._now_open.engine.kick()

    def background(self, on: bool = True) -> None:
        """While on, the line is asked more rarely whether it is alive."""
        self._now_open.engine.background(on)

    def _become(self, state: State) -> None:
        self._state = state
        self._bell.ring()

    # Changes: see `Changes`

    async def _change(self, op: str, fields: dict[str, Any], body: Any = ABSENT, timeout: float | None = None) -> Outgoing:
        given_up = self._send_timeout if timeout is None else timeout
        return await self._now_open.sending.change(op, fields, body, given_up)

    def outgoing(self) -> list[Outgoing]:
        """What has no answer yet, in the order in which it was sent; after a restart, too."""
        return self._now_open.sending.outgoing()

    async def _follow(self, outgoing: Outgoing) -> None:
        """Somebody waits for receipts of a message that was sent."""
        if outgoing.conv is not None and self._now_open.sending.receipts.needs_members(outgoing.conv):
            self._spawn(partial(self._fetch_members, outgoing.conv))

    async def _fetch_members(self, group: str) -> None:
        members: list[str] = []
        reply: dict[str, Any] = {"more": True}
        while reply.get("more"):
            reply = await self.group_info(group, after=members[-1] if members else None)
            page = [str(each["user"]) for each in reply.get("members", ())]
            if not page or page[-1] in members:
                break
            members += page
        self._now_open.sending.receipts.members(group, members)
        await self._refresh_receipts()

    async def _refresh_receipts(self) -> None:
        """What happened to the marks while there was no connection stands in the list of conversations."""
        receipts = self._now_open.sending.receipts
        wanted = receipts.conversations()
        after: str | None = None
        while wanted:
            page = await self.conversations(after=after)
            for found in page:
                wanted.discard(found.conv)
                for user, marks in found.receipts.items():
                    receipts.mark(found.conv, user, marks.get("delivered"), marks.get("read"))
            if not page.more or page.next == after:
                return
            after = page.next

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        async def quietly() -> None:
            try:
                await work()
            except ClientError as error:
                _log.info("not looked up: %s", error)

        tasks = self._now_open.tasks
        task = asyncio.get_running_loop().create_task(quietly())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # Questions: see `Questions`

    async def request(self, /, op: str, *, timeout: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        """Any request of the protocol by its name, `group.info` or `group_info`; the reply as a map.

        It does not go through the outbox: it is asked again when the connection was lost, and forgotten after `timeout` seconds.
        """
        name = op.replace("_", ".", 1) if op.startswith(("group_", "device_")) else op
        return await self._now_open.asking.request(name, fields, timeout)

    async def typing(self, to: str, on: bool = True) -> None:
        """Tell the others that the user types, or has stopped; nothing comes of it where there is no connection."""
        engine = self._now_open.engine
        engine.apply(engine.session.tell({"op": "typing", "to": self._recipient(to), "on": on}))

    async def watch(self, user: str, *, timeout: float = ANSWER_S) -> None:
        """From now on `events()` tells a user's `Presence`, over reconnects too, the present one first.

        Raises `RequestFailed` (`forbidden`) where the user is in no conversation with this one, `Offline`.
        """
        await self._now_open.asking.watch(user, timeout)

    async def unwatch(self, user: str) -> None:
        """No more of the user's `Presence`."""
        self._now_open.asking.unwatch(user)

    # Files

    async def upload(self, path: str | Path, *, name: str | None = None, type: str | None = None) -> str:  # noqa: A002
        """The id of the file on the server, for `files` of `send`. `name` and `type` are what others see; made from `path` else.

        Raises `RequestFailed` (`too_large`, `quota`, …), `Offline`, `OSError` for the file itself.
        """
        files, password = self._http_side(), await ask_password(self._password)
        return await asyncio.to_thread(files.upload, Path(path), password, name, type)

    async def download(self, file_id: str, path: str | Path) -> None:
        """`path` holds the whole file when this returns. Raises `RequestFailed` (`not_found`), `Offline`, `OSError`."""
        files, password = self._http_side(), await ask_password(self._password)
        await asyncio.to_thread(files.download, file_id, Path(path), password)

    def _http_side(self) -> Files:
        if self._files is None:
            raise ClientError("files go over HTTP: say where that is with http=")
        return self._files

    # Reading

    def messages(self) -> Reader[Message]:
        """Messages from where this device stopped last, live ones behind them; ends when the client is closed.

        One is done when the next is asked for, or at `await message.done()`. Ending the iteration in any way leaves the one in
        hand not done: the next iterator begins with it, `again` set. Raises `RuntimeError` while there is another iterator.
        """
        return self._now_open.reading.messages()

    def events(self) -> Reader[Event]:
        """What happens beside messages; ends when the client is closed. Nothing is kept where nobody reads."""
        return self._now_open.reading.events()
