"""The thread on which webhooks are made, and how the rest of the server meets it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

import peewee

from mqtt_im.config import HooksConfig, PushConfig
from mqtt_im.hooks import outbox
from mqtt_im.hooks.outbox import NotLeader, Outbox
from mqtt_im.protocol.errors import Refusal, StoreError
from mqtt_im.store.interface import Readable
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.sqlite.follow import LogReader
from mqtt_im.tables import Folder, Place

from .desk import Counter, Desk, Rows
from .events import EventDesk
from .push import PushDesk
from .sender import Line, Outcome, Sender, WebhookLine

if TYPE_CHECKING:
    from .leading import Lead

POLL_S: Final = 0.1
SHARED_POLL_S: Final = 0.25
"""The same where it is asked of a database."""
PAUSE_S: Final = 1.0
"""After a step that failed."""
ANSWER_S: Final = 30.0
FIGURES_S: Final = 1.0
SETTLE_S: Final = 5.0
"""So long a node that begins to lead waits for what is being committed."""
DESKS: Final[tuple[outbox.Desk, ...]] = ("push", "hooks")

log = logging.getLogger(__name__)

News = Callable[[int], None]
"""What came from another thread. It is given the steady time in ms, within a transaction of the outbox."""


class Followed(Rows, Protocol):
    """The log, for the thread that follows it."""

    def settle(self, patience_s: float = 0.0) -> int:
        """The newest row before which nothing is missing any more; it waits so long for what is being committed."""

    def close(self) -> None:
        """It is not read any more."""


class Hooks:
    """All webhooks of a server. `start`, `stop` and `presence` are called on the event loop."""

    table_name = outbox.NAME

    def __init__(
        self,
        push: PushConfig,
        hooks: HooksConfig,
        data_dir: Path,
        ledger: Ledger,
        online: Collection[str],
        count: Counter,
        place: Place | None = None,
        lead: Lead | None = None,
    ) -> None:
        """`place`: where the outbox is, else in `data_dir`; `lead`: which node sends what is in it, where there are several."""
        self._push = push
        self._hooks = hooks
        self._data_dir = data_dir
        self._place = place or Folder(data_dir)
        self._ledger = ledger
        self._online = online
        self._count = count
        self._lead = lead
        self._inbox: SimpleQueue[News | None] = SimpleQueue()
        self._arrived: list[News] = []
        """What became of attempts, which are few at a time: until it is in the outbox, no others are made in their place."""
        self._events: EventDesk | None = None
        self._desks: list[Desk[Any]] = []
        self._senders: list[Sender[Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failing = False
        self._opened = 0
        """As which incarnation this node has opened its desks, where there are several nodes."""
        self._figured_at = 0.0
        self.waiting = 0
        """Pushes and events that wait to be sent, as of a second ago."""
        self.dead = 0
        """Pushes and events that failed too often, as of a second ago."""

    async def start(self) -> None:
        """The log is followed for every receiver that is configured. The ledger runs already. Raises `StoreError`.

        What waits for a receiver that is not configured any more is gone.
        """
        wanted = self._wanted()
        if not wanted and not await asyncio.to_thread(self._place.has, self.table_name):
            return
        self._loop = asyncio.get_running_loop()
        if self._lead is not None:
            await asyncio.to_thread(self._start_shared, wanted)
            return
        rows = Outbox(self._place, self.table_name)
        self._begin(rows, await self._ledger.call(lambda engine: engine.last), wanted)
        if not wanted:
            rows.close()
            return
        reader = LogReader(self._data_dir)
        self._prepare()
        self._open_desks(rows, reader, await self._ledger.call(lambda engine: engine.last))
        self._run_with(rows, reader)

    def _start_shared(self, wanted: set[outbox.Desk]) -> None:
        """Several nodes have the outbox; the thread finds out which one leads, and opens the desks there."""
        from mqtt_im.tables.postgres import Schemas

        from .leading import SharedLogReader

        assert isinstance(self._place, Schemas)
        rows = Outbox(self._place, self.table_name)
        if wanted:
            self._prepare()
        self._run_with(rows, SharedLogReader(self._place.lane))

    def _run_with(self, rows: Outbox, reader: Followed) -> None:
        self._thread = threading.Thread(target=self._run, args=(rows, reader), name=self.table_name, daemon=True)
        self._thread.start()

    def _begin(self, rows: Outbox, last: int, wanted: set[outbox.Desk]) -> None:
        rows.belongs_to(self._ledger.epoch, last)
        for desk in DESKS:
            if desk not in wanted:
                rows.forget(desk)

    def _prepare(self) -> None:
        """What is needed to be asked for something, also where another node leads. Raises `StoreError`."""

    def _wanted(self) -> set[outbox.Desk]:
        """The desks that the configuration asks for."""
        desks: set[outbox.Desk] = set()
        if self._push.url:
            desks.add("push")
        if self._hooks.url:
            desks.add("hooks")
        return desks

    def _open_desks(self, rows: Outbox, reader: Rows, last: int) -> None:
        common = self._common(reader)
        if self._hooks.url:
            hooks = self._hooks
            sender = self._sender("hooks", lambda: WebhookLine(hooks.url, hooks.secret, hooks.timeout_s), lambda: events)
            events = EventDesk(rows, sender, self._count, settings=hooks, position=begin(rows, "hooks", last), **common)
            self._events = events
            self._desks.append(events)
        if self._push.url:
            push = self._push
            sender = self._sender("push", lambda: WebhookLine(push.url, push.secret, push.timeout_s), lambda: pushes)
            pushes = PushDesk(rows, sender, self._count, settings=push, position=begin(rows, "push", last), **common)
            self._desks.append(pushes)

    def _common(self, reader: Rows) -> dict[str, Any]:
        """What every desk is made with."""
        return {
            "log_rows": reader,
            "ask": self._ask,
            "online": self._online,
            "epoch": self._ledger.epoch,
            "now": self._ledger.clock.steady(),
        }

    def _sender(
        self, name: str, make_line: Callable[[], Line[Any]], desk: Callable[[], Desk[Any]], *, lanes: bool = True
    ) -> Sender[Any]:
        def report(outcome: Outcome[Any]) -> None:
            self._inbox.put(lambda now: desk().take(outcome, now))

        lead = self._lead
        go = (lambda: True) if lead is None else (lambda: lead.current)
        sender: Sender[Any] = Sender(name, make_line, report, go, lanes=lanes)
        self._senders.append(sender)
        return sender

    def presence(self, user: str, online: bool, seen: int) -> None:
        """A user has come, or has gone at `seen` (ms since 1970)."""
        events = self._events
        if events is not None and events.presence(user, online, seen):
            self._inbox.put(lambda _: None)  # it is taken in at once

    async def stop(self) -> None:
        """The thread has ended; what it had not sent is in the outbox. The ledger still runs."""
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
            self._thread = None

    # The thread.

    def _run(self, rows: Outbox, reader: Followed) -> None:
        pause = 0.0
        while self._wait(pause):
            pause = self._guarded_step(rows, reader)
        self._close_desks()
        while self._wait(0.0, at_end=True):
            pass
        self._guarded(lambda: self._take_in(rows))
        if (lead := self._lead) is not None:
            self._guarded(lambda: lead.end(rows))
        reader.close()
        rows.close()

    def _close_desks(self) -> None:
        """Nothing more is sent from here."""
        for sender in self._senders:
            sender.end()
        self._senders.clear()
        self._desks.clear()
        self._events = None
        self.waiting = self.dead = 0

    def _ceased(self) -> None:
        self._close_desks()
        self._opened = 0
        log.warning("webhooks: this node does not send them any more", extra={"outbox": self.table_name})

    def _leads(self, rows: Outbox, reader: Followed) -> bool:
        """Whether this node sends what is in the outbox; its desks are open as long as it does."""
        lead = self._lead
        if lead is None:
            return True
        leads = lead.look(rows)
        if self._opened and self._opened != lead.mine:
            self._ceased()
        if leads and self._opened != lead.mine:
            self._close_desks()
            self._arrived.clear()
            wanted = self._wanted()
            last = reader.settle(SETTLE_S)
            self._begin(rows, last, wanted)
            if wanted:
                self._open_desks(rows, reader, last)
                log.info("webhooks: this node sends them", extra={"outbox": self.table_name})
            self._opened = lead.mine
        return leads

    def _wait(self, seconds: float, at_end: bool = False) -> bool:
        """Gather what has come, waiting so long for the first of it; False at the end."""
        try:
            news = self._inbox.get(timeout=seconds) if seconds else self._inbox.get_nowait()
            while news is not None:
                self._arrived.append(news)
                news = self._inbox.get_nowait()
        except Empty:
            return not at_end
        return False

    def _guarded_step(self, rows: Outbox, reader: Followed) -> float:
        """One step; how many seconds to wait before the next."""
        busy: list[bool] = []
        if not self._guarded(lambda: busy.append(self._step(rows, reader))):
            return PAUSE_S
        return 0.0 if any(busy) else POLL_S if self._lead is None else SHARED_POLL_S

    def _step(self, rows: Outbox, reader: Followed) -> bool:
        if not self._leads(rows, reader):
            self._arrived.clear()
            return False
        for sender in self._senders:
            sender.cut_late()
        self._take_in(rows)
        busy = False
        for desk in self._desks:
            busy |= desk.follow(self._ledger.clock.steady())
            busy |= desk.dispatch(self._ledger.clock.steady())
        if time.monotonic() - self._figured_at >= FIGURES_S:
            self.waiting = sum(rows.waiting(desk.name) for desk in self._desks)
            self.dead = sum(rows.dead_count(desk.name) for desk in self._desks)
            self._figured_at = time.monotonic()
        return busy

    def _take_in(self, rows: Outbox) -> None:
        if self._arrived:
            now = self._ledger.clock.steady()
            with rows.transaction():
                for news in self._arrived:
                    news(now)
            self._arrived.clear()

    def _guarded(self, work: Callable[[], object]) -> bool:
        """Do the work; False where the disk or the ledger does not let it be done now. Nothing is lost by that."""
        try:
            work()
        except NotLeader:
            assert self._lead is not None
            self._lead.lost()
            self._arrived.clear()
            self._ceased()
            return False
        except (sqlite3.Error, peewee.PeeweeException, Refusal, StoreError, TimeoutError) as error:
            if not self._failing:
                log.error("webhooks: can't go on: %s", error)
            self._failing = True
            return False
        except Exception:
            log.exception("webhooks: a step failed")
            return False
        if self._failing:
            self._failing = False
            log.warning("webhooks: go on again")
        return True

    def _ask(self, question: Callable[[Readable], Any], whole: Sequence[str] = ()) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._answer(question, whole), self._loop).result(ANSWER_S)

    async def _answer(self, question: Callable[[Readable], Any], whole: Sequence[str]) -> Any:
        if whole:
            await self._ledger.pull(whole)
        return await self._ledger.call(question)


def begin(rows: Outbox, desk: outbox.Desk, last: int) -> int:
    """Where the desk goes on; a new one begins with what comes from now on, and remembers that."""
    position = rows.position(desk)
    if position is None:
        rows.follow(desk, last)
        return last
    return position
