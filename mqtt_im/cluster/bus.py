"""What nodes tell each other, over LISTEN and NOTIFY, and how each knows which others live: one thread, one connection.

The thread says every `BEAT_S` seconds that this node lives, looks which others do, and declares dead who has not said so. What
the loop wants to tell is gathered and sent as one statement, with `synchronous_commit = off`: nothing of it is worth a disk.
After the connection was lost, everybody takes everybody for newly come, so that what was missed is told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

import psycopg

from mqtt_im import lasting
from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import one_line
from mqtt_im.protocol.errors import MqttImError

from .neighbours import Neighbours
from .outbox import Outbox
from .packing import Packer, Unpacker
from .questions import Handler

CHANNEL: Final = "mqtt_im"
MAX_ARRIVED: Final = 20_000
"""What the loop has not got to; beyond that it is not told that inboxes have grown, which it finds by itself."""
_TURN_S: Final = 0.003
RETRY_S: Final = 0.3
AWAY_S: Final = 3.0
"""A database that has not answered for so long counts as gone."""

_Call = tuple[Callable[..., Any], Sequence[Any]]

log = logging.getLogger(__name__)


class Bus(Neighbours):
    """One node among several. `start` and `stop` are called on the loop."""

    alone = False

    def __init__(self, database: Database, me: nodes.Me, data_dir: Path) -> None:
        """`me` is registered before `start`, and anew by this where it was declared dead."""
        self._handlers: dict[str, list[Handler]] = {}
        super().__init__(me.name)
        self._database = database
        self._me = me
        self._data_dir = data_dir
        self._loop = asyncio.get_running_loop()
        self.outbox = Outbox()
        self._in: deque[_Call] = deque()
        """What is to be done on the loop, in the order in which the thread has found it."""
        self._barriers: list[asyncio.Future[None]] = []
        self._packer = Packer()
        self._unpacker = Unpacker()
        self._listening = 0
        self._lock = threading.Lock()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self._stopping = self._quiet = False
        self._held = 0
        self._bury_from = 0.0
        self._known: dict[int, str] = {}
        """As the thread has it."""
        self._letting_go: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=lasting.thread, args=("the bus", self._run), name="bus", daemon=True)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.seen = time.monotonic()
        """When the database has answered last."""
        self.on("hello", lambda node, _: self._joined(node))

    @property
    def incarnation(self) -> int:  # type: ignore[override]
        """See `Neighbours`."""
        return self._me.incarnation

    @property
    def away(self) -> bool:  # type: ignore[override]
        """See `Neighbours`."""
        return time.monotonic() - self.seen > AWAY_S

    async def start(self) -> None:
        """This node listens, and the others know of it."""
        self._thread.start()
        await self._ready
        self.started = True

    def quiet(self) -> None:
        """See `Neighbours`."""
        self._quiet = True

    async def stop(self) -> None:
        """See `Neighbours`."""
        self._stopping = True
        self._poke()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)
        os.close(self._wake_r)
        os.close(self._wake_w)

    # The loop's side.

    def on(self, kind: str, handler: Handler) -> None:
        """See `Neighbours`."""
        self._handlers.setdefault(kind, []).append(handler)

    def tell(self, kind: str, *fields: Any, to: int = 0) -> None:
        """See `Neighbours`. May be called from any thread."""
        if not self.others and not to:
            return
        if self.outbox.tell([self._me.incarnation, to, kind, *fields]):
            self._poke()

    def send(self, kind: str, fields: Sequence[Any], to: Collection[int], done: Callable[[], None] | None, size: int = 0) -> bool:
        """See `Neighbours`."""
        first = self.outbox.keep(([self._me.incarnation, node, kind, *fields] for node in to), done, size)
        if first:
            self._poke()
        return first is not None

    async def caught_up(self) -> None:
        """See `Neighbours`."""
        future: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            self._barriers.append(future)
        self._poke()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AWAY_S):
                await future

    def _poke(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_w, b"x")

    def _arrived(self, calls: Sequence[_Call]) -> None:
        first = not self._in
        self._in += calls
        if first and self._in:
            self._take()

    def _take(self) -> None:
        """Some of what has arrived is done, and the rest in later turns of the loop."""
        end = time.perf_counter() + _TURN_S
        try:
            while self._in:
                function, arguments = self._in.popleft()
                function(*arguments)
                if time.perf_counter() > end:
                    break
        finally:
            if self._in:
                self._loop.call_soon(self._take)

    def _heed(self, sender: int, _: int, kind: str, *fields: Any) -> None:
        if not self._quiet:
            lasting.each("what another node has told", self._handlers.get(kind, ()), sender, list(fields))

    def _changed(self, living: dict[int, str]) -> None:
        if self._quiet:
            return
        left = [node for node in self.others if node not in living]
        joined = [node for node in living if node not in self.others]
        for node in left:
            name = self.others.pop(node)
            log.warning("a node is gone", extra={"other": name})
            lasting.each("who is told that a node is gone", self.on_left, node)
        for node in joined:
            self.others[node] = living[node]
            log.info("a node has come", extra={"other": living[node]})
            self._joined(node)

    def _joined(self, node: int) -> None:
        if node in self.others:
            lasting.each("who is told that a node has come", self.on_joined, node)

    def _declared_dead(self, over: Callable[[], None]) -> None:
        self.dead = True
        log.error(
            "this node was declared dead, since it stood still or the store has a new epoch; its clients are sent away, and it"
            " begins anew"
        )
        self._letting_go = self._loop.create_task(self._let_go(over))

    async def _let_go(self, over: Callable[[], None]) -> None:
        for lost in self.on_lost:
            try:
                await lost()
            except Exception:
                log.exception("what this node had could not be let go of")
        over()

    def _begins_anew(self) -> None:
        self.dead = False

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call_all([(function, arguments)])

    def _call_all(self, calls: Sequence[_Call]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._arrived, calls)

    # The thread.

    def _run(self) -> None:
        said = ""
        while not self._stopping:
            try:
                with self._database.connect("bus") as connection:
                    if said:
                        log.warning("the database is back")
                        said = ""
                    self._serve(connection)
            except (psycopg.Error, MqttImError) as error:
                text = one_line(error)
                if not said:
                    log.error("the database can't be asked which nodes there are: %s", text)
                said = text
                self._pause()
        self._call(self._greeted)

    def _pause(self) -> None:
        """Before the database is tried again: what is to be told meanwhile waits too, a stop does not."""
        until = time.monotonic() + RETRY_S
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if _wait([self._wake_r], left):
                os.read(self._wake_r, 4096)

    def _serve(self, connection: Connection) -> None:
        connection.execute("SET synchronous_commit = off")
        connection.execute(f"LISTEN {CHANNEL}")
        self._listening = 0
        self._unpacker.forget()
        got: list[list[Any]] = []
        connection.add_notify_handler(lambda notify: got.extend(self._read(notify.payload)))
        beat_at = 0.0
        greet = True
        self._held = 0
        # After an outage nobody has said that it lives; that is no reason to declare everybody dead.
        self._bury_from = time.monotonic() + nodes.DEAD_S
        while not self._stopping:
            now = time.monotonic()
            if now >= beat_at:
                greet |= self._beat(connection)
                if self.outbox.has_room_again():
                    self._call(self._tell_anew)
                beat_at = now + nodes.BEAT_S
                if greet:  # whoever hears it tells what this node may have missed, and is told what it may have
                    self._send(connection, [[self._me.incarnation, 0, "hello"]])
                    self._call(self._greeted)
                    greet = False
            self._send_waiting(connection)
            barriers = self._passing(connection)
            self._listen(connection, got)
            if got:
                if any(message[2] in ("hello", "bye") for message in got):
                    beat_at = 0.0  # look at once who is there now
                behind = len(self._in) > MAX_ARRIVED
                self._call_all([(self._heed, message) for message in got if not behind or message[2] != "wake"])
                got.clear()
            if barriers:
                self._call_all([(_pass, (barrier,)) for barrier in barriers])
            if not len(self.outbox) and not self._barriers:
                _wait([connection.fileno(), self._wake_r], max(0.0, beat_at - time.monotonic()))
            if _wait([self._wake_r], 0.0):
                os.read(self._wake_r, 4096)
        self._send_waiting(connection)
        nodes.leave(connection, self._me)
        self._send(connection, [[self._me.incarnation, 0, "bye"]])

    def _greeted(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)
        elif not self._quiet:
            lasting.each("who is told of a gap", self.on_gap)
        self._tell_anew()

    def _tell_anew(self) -> None:
        for node in list(self.others):
            self._joined(node)

    def _listen(self, connection: Connection, got: list[list[Any]]) -> None:
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            got.extend(self._read(notify.extra.decode()))

    def _read(self, payload: str) -> list[list[Any]]:
        return self._unpacker.unpacked(payload, self._me.incarnation)

    def _beat(self, connection: Connection) -> bool:
        """Say that this node lives, and look who else does; whether it is one that the others do not know."""
        is_new = False
        if not nodes.beat(connection, self._me):
            if not self._has_let_go():
                return False
            nodes.register(self._database, connection, self._me, self._data_dir)
            self._call(self._begins_anew)
            is_new = True
        if self._listening != self._me.incarnation:
            connection.execute(f"LISTEN {_channel(self._me.incarnation)}")
            self._listening = self._me.incarnation
        if self._held != self._me.incarnation and nodes.hold(connection, self._me):
            self._held = self._me.incarnation
        if time.monotonic() >= self._bury_from:
            nodes.bury(connection)
        living = {
            incarnation: name for incarnation, name in nodes.living(connection).values() if incarnation != self._me.incarnation
        }
        self.seen = time.monotonic()
        if living != self._known:
            self._known = living
            self._call(self._changed, living)
        return is_new

    def _has_let_go(self) -> bool:
        """This node has nothing left of what it had before it was declared dead; False where it stops anyway.

        Else what its clients had sent it while it stood still would be written as if they had not been elsewhere since.
        """
        over = threading.Event()
        if not self._quiet:
            self._call(self._declared_dead, over.set)
        while not over.wait(RETRY_S):
            if self._quiet or self._stopping:
                return False
        return True

    def _send_waiting(self, connection: Connection) -> None:
        """What waits is on its way; where the connection breaks, what must not be lost is sent again over the next one."""
        if waiting := self.outbox.take():
            self._send(connection, [item.message for item in waiting if item.message is not None])
            if done := self.outbox.sent():
                self._call(lasting.each, "what has waited for others to be told", done)

    def _passing(self, connection: Connection) -> list[asyncio.Future[None]]:
        """Those who wait for what others had sent, all of which comes before an answer of the database."""
        with self._lock:
            barriers, self._barriers = self._barriers, []
        if barriers:
            connection.execute("SELECT 1")
        return barriers

    def _send(self, connection: Connection, messages: list[list[Any]]) -> None:
        payloads = list(self._packer.packed(messages))
        if payloads:
            query = "SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) AS t (channel, payload)"
            channels = [_channel(to) for to, _ in payloads]
            connection.execute(query, (channels, [payload for _, payload in payloads]))


def _channel(node: int) -> str:
    """Where a node listens for what is told to it alone; 0: where all do."""
    return f"{CHANNEL}_{node}" if node else CHANNEL


def _wait(files: Sequence[int], seconds: float) -> bool:
    """Whether one of these can be read; so long it is waited for. Not `select`, which knows no more than 1,024 files."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return bool(poll.poll(ceil(seconds * 1000)))


def _pass(barrier: asyncio.Future[None]) -> None:
    if not barrier.done():
        barrier.set_result(None)
