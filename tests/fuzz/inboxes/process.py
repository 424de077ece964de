"""A server's process without threads and sockets: each of its parts takes its step when it is told to; and its disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from mqtt_im.bridge.audience import Audience
from mqtt_im.bridge.claims import Claims
from mqtt_im.bridge.service import Bridge
from mqtt_im.bridge.settings import BridgeSettings
from mqtt_im.core.rules import Limits
from mqtt_im.metrics import Metrics
from mqtt_im.pacing import Share
from mqtt_im.protocol.topics import Topics
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.policy import Policy
from tests.support.retention import compact
from tests.support.store import Crash, SqliteStore

if TYPE_CHECKING:
    from .line import Line

Key = tuple[str, str]
"""User and device."""


class Disk:
    """What becomes of the next commits; it outlives the process."""

    def __init__(self) -> None:
        self.failing = 0
        """So many attempts to write are not done."""
        self.doubtful = 0
        """So many commits are on disk, and are said not to be."""
        self.kill = ""
        """The process ends `before` or `after` its next commit."""
        self.during: Callable[[], None] = lambda: None
        """What others do while a commit waits for the disk."""

    def heal(self) -> None:
        """Everything is written from now on."""
        self.failing = self.doubtful = 0
        self.kill = ""

    def commit(self, write: Callable[[], None]) -> None:
        """A commit of the log: on disk, or not, or the end."""
        self.during()
        if self.kill == "before":
            raise Crash
        self.attempt()
        write()
        if self.kill:
            raise Crash
        self.during()
        if self.doubtful:
            self.doubtful -= 1
            raise sqlite3.OperationalError("disk I/O error, though it is there")

    def attempt(self) -> None:
        """Raises where nothing can be written."""
        if self.failing:
            self.failing -= 1
            raise sqlite3.OperationalError("database or disk is full")


class Session:
    """An MQTT session, which outlives connections, and the process where it is kept."""

    def __init__(self, name: str, *, kept: bool) -> None:
        self.name = name
        self.kept = kept
        self.user_qos = self.device_qos = -1


class _Loop:
    """The event loop as the ledger sees it: what its threads say to it is heard when it is told to hear."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.mail: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """See `asyncio`."""
        self._loop.call_soon(call, *args)

    def call_soon_threadsafe(self, call: Callable[..., object], *args: Any) -> None:
        """See `asyncio`."""
        self.mail.append((call, args))


class Process:
    """To be made and used on an event loop."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        sessions: dict[Key, Session],
        faults: list[Any],
        clock: Callable[[], float],
        *,
        limits: Limits,
        settings: BridgeSettings,
    ) -> None:
        """`clock` is real time in seconds."""
        self.sessions = sessions
        self.faults = faults
        self.recalled: set[tuple[str, int]] = set()
        """Messages of which the loop has been told that they were recalled."""
        self._clock = clock
        self._claims = Claims()
        audience = Audience()
        self.store = SqliteStore(folder, limits, claim=self._claims.take_back, unclaim=self._claims.release, online=audience)
        self.set_clock()
        self._loop = _Loop()
        engine, ledger = self.store.engine, self.store.ledger
        ledger._loop, ledger._store = cast(Any, self._loop), engine
        ledger.writer._untold = threading.Semaphore(1 << 20)
        ledger.gathering.pause = lambda engine, failing: 0.0  # type: ignore[method-assign]
        ledger.gathering.outflow._clock = engine.erasure._clock = clock
        log = engine.log
        append, note = log.append, log.note
        log.append = lambda *rows: disk.commit(lambda: append(*rows))  # type: ignore[method-assign]

        def noted(key: str, value: str) -> None:
            disk.attempt()
            note(key, value)

        log.note = noted  # type: ignore[method-assign]
        self.bridge = Bridge(ledger, Topics("im/v1"), settings, cast(Any, None), self._claims, Metrics(), audience)
        self.ponders = False
        """The ledger's thread is at work on what takes long, so that work for many gives way."""
        slices = self.bridge._slices
        slices._clock, slices._share, slices._give_way = clock, Share(clock), lambda: self.ponders
        taking_back = self.bridge.telling._taking_back
        recalled = taking_back.recalled

        def heard(conv: str, seq: int) -> None:
            self.recalled.add((conv, seq))
            recalled(conv, seq)

        taking_back.recalled = heard  # type: ignore[method-assign]
        self.live: dict[Key, Line] = {}
        self._turns: dict[Key, asyncio.Lock] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def set_clock(self) -> None:
        """The server's clock shows the time."""
        self.store.clock.set(int(self._clock() * 1000))

    @property
    def failing(self) -> bool:
        """Whether the store can't commit, as far as it knows."""
        return self.store.ledger.failing is not None

    def background(self, work: Any) -> None:
        """Have this done on the loop."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # Its threads.

    def commit(self) -> bool:
        """The ledger's thread does what waits for it; whether there was something."""
        gathering, writer, engine = self.store.ledger.gathering, self.store.ledger.writer, self.store.engine
        self.set_clock()
        batch: list[Job] = []
        if gathering.turns or not gathering._queue.empty():
            batch = gathering.gather(engine, writer.failing is not None)
        if batch:
            writer._work(engine, batch)
        elif writer.failing is not None:
            writer._recovered(engine)
        if writer.failing is None:
            writer._beside(engine, len(batch))
        return bool(batch)

    def read(self) -> bool:
        """The reader's thread does one thing; whether there was something."""
        reader = self.store.reader
        self.set_clock()
        reader._gather(block=False)
        if not reader._turns and not reader._aside:
            return False
        found = len(reader._turns) > 0
        if found:
            reader.serve()
        else:
            aside, reader._aside = reader._aside, []
            for since, job in aside:
                reader._do(job, since)
        return found or not reader._aside

    def hear(self) -> bool:
        """The loop gets to one thing that its threads have told it; whether there was something."""
        if not self._loop.mail:
            return False
        call, args = self._loop.mail.popleft()
        call(*args)
        return True

    def retain(self, policy: Policy) -> None:
        """A pass of retention from its beginning to its end."""
        if self.failing:
            return
        self.set_clock()
        engine = self.store.engine
        try:
            compact(engine, policy, self.store.clock.wall())
        except engine.errors as error:
            self.store.ledger.writer._trouble(engine, error)

    # Its transport.

    def admit(self, line: Line, *, clean: bool, kept: bool, random: Random) -> None:
        """A CONNECT has come."""
        self.background(self._admit(line, clean=clean, kept=kept, random=random))

    async def _admit(self, line: Line, *, clean: bool, kept: bool, random: Random) -> None:
        key = (line.user, line.device)
        async with self._turns.setdefault(key, asyncio.Lock()):
            if line.closed:
                return
            if (old := self.live.get(key)) is not None:
                old.end("taken_over")
            await self.bridge.quiesced(*key)
            if _gone(line):
                return
            found = self.sessions.get(key)
            if found is not None and not clean:
                found.kept = kept
                session, resumed = found, True
            else:
                if clean or not kept:
                    self.bridge.session_ended(*key)
                session, resumed = Session(f"{random.getrandbits(40):x}", kept=kept), False
                self.sessions[key] = session
            self.live[key] = line
            line.accept(session, resumed=resumed)
        if not _gone(line):
            self.bridge.attached(line)

    def left(self, line: Line) -> None:
        """A connection that was let in has ended."""
        key = (line.user, line.device)
        if self.live.get(key) is line:
            del self.live[key]
            if not self.sessions[key].kept:
                del self.sessions[key]
        self.bridge.detached(line)

    @property
    def owed(self) -> set[Key]:
        """Devices of which something is to be written when the store commits again."""
        return set(self.store.ledger.writer._owed._devices)

    def kill(self) -> None:
        """The process is gone, with all that was not on disk."""
        for task in self.tasks | self.bridge._tasks:
            task.cancel()
        for key in [key for key, session in self.sessions.items() if not session.kept]:
            del self.sessions[key]
        self.store.crash()

    def close(self) -> None:
        """The end."""
        for task in self.tasks | self.bridge._tasks:
            task.cancel()
        self.store.close()


def _gone(line: Line) -> bool:
    """Whether the connection has ended, which every `await` gives it time for."""
    return line.closed
