"""What is committed, as the reader's thread sees it: on a connection of its own, each look one snapshot.

What was read is told before anything is told that this server commits later: else a message that was recalled meanwhile would
come back, and one that was replaced would be offered. So a look that has shown messages begins anew where one of their
conversations was changed by a commit since. What
other servers commit is only ever told of by a later look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from mqtt_im.clock import Times
from mqtt_im.core.model import Amended, Conv
from mqtt_im.core.records import Act, AnyRecord
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.store.common.rendering import Rendering, Showing
from mqtt_im.store.given import Given
from mqtt_im.store.interface import Readable

from . import tables
from .errors import ERRORS
from .look import Look
from .state import Work
from .wire import BEGIN_READING, PLANNING, Link

MAX_NOTED: Final = 10_000
"""Conversations and users of which it is known when they were changed last."""
_TRIES: Final = 5


class Changes:
    """When this server's commits have changed messages that were there before, and users. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.commits = 0
        self._forgotten = 0
        """What is not known here was changed at the latest then."""
        self._convs: dict[str, int] = {}
        self._users: dict[str, int] = {}

    def note(self, state: Work) -> None:
        """A commit is there, and nobody was told of it yet."""
        with self.lock:
            self.commits += 1
            if len(self._convs) + len(self._users) > MAX_NOTED:
                self._convs.clear()
                self._users.clear()
                self._forgotten = self.commits
            self._convs.update(dict.fromkeys(state.amended_convs, self.commits))
            self._users.update(dict.fromkeys(state.changed_users, self.commits))

    def since(self, commits: int, convs: Container[str], users: Container[str]) -> bool:
        """Whether any of these was changed by a commit after the first so many; inside the lock."""
        if commits == self.commits:
            return False
        if self._forgotten > commits:
            return True
        return any(at > commits and name in convs for name, at in self._convs.items()) or any(
            at > commits and name in users for name, at in self._users.items()
        )


class ReadLook(Look):
    """The state of one look, which remembers what it was asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shown: set[str] = set()
        """Conversations of which it was asked what became of messages."""

    def forget(self) -> None:
        """See `Look`."""
        super().forget()
        self.shown.clear()

    @property
    def looked_at(self) -> Container[str]:
        """The users that were looked at."""
        return self._users

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""
        self.shown.add(conv.name)
        return super().amended(conv, seq)

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """See `interface.State`."""
        self.shown |= {record.conv for record in records.values() if isinstance(record, Act)}
        return super().amended_of(records)


class View(Showing):
    """`interface.Readable`."""

    def __init__(self, state: ReadLook, given: Given) -> None:
        self.state = state
        self.rendering = Rendering(state)
        self.limits = given.limits
        self.online = given.online
        self.now = self.behind = self.ahead = 0

    @property
    def last(self) -> int:
        """See `interface.Readable`."""
        newest: int = self.state.link.one(tables.NEWEST)[0][0]
        return newest


class Reading:
    """Implements `interface.Reading`."""

    errors = ERRORS
    gathers = True

    def __init__(
        self,
        database: Database,
        changes: Changes,
        given: Given,
        own_clock: bool,
    ) -> None:
        """`own_clock` as for the engine. Raises `StoreError`."""
        self._own_clock = own_clock
        self._gathered: int | None = None
        """How many commits there were when the looks that are done `together` began."""
        connection = database.connect("reader")
        try:
            connection.execute(PLANNING)
        except psycopg.Error as error:
            raise explained(error, database.where) from error
        self._link = Link(connection)
        self._changes = changes
        self._state = ReadLook(self._link, given.has_account, given.uploads.stored)
        self.view = View(self._state, given)

    @contextmanager
    def together(self, fetches: Sequence[tuple[str, int, int]]) -> Iterator[None]:
        """See `interface.Reading`."""
        commits = self._changes.commits
        self._begin()
        try:
            self._state.read_inboxes(fetches)
            self._gathered = commits
            yield
        finally:
            self._gathered = None
            self._link.roll_back()

    def run(self, look: Callable[[Readable], None], tell: Callable[[], None], now: Times, exact: bool = False) -> bool:
        """See `interface.Reading`."""
        self._set_time(now)
        if self._gathered is not None:
            look(self.view)
            if self._told(tell, self._gathered, exact):
                return True
            self._gathered = None
            self._link.roll_back()
        changes = self._changes
        for _ in range(_TRIES):
            commits = changes.commits
            self._look(look)
            if self._told(tell, commits, exact):
                return True
        with changes.lock:  # nothing that is committed meanwhile is told before
            self._look(look)
            tell()
            return True

    def _told(self, tell: Callable[[], None], commits: int, exact: bool) -> bool:
        """What was looked at when there were so many commits is told, unless it has changed since."""
        changes = self._changes
        with changes.lock:
            if changes.since(commits, self._state.shown, self._state.looked_at if exact else ()):
                return False
            tell()
            return True

    def _set_time(self, now: Times) -> None:
        view = self.view
        if self._own_clock:
            view.now = max(view.now, now.wall)
            view.behind, view.ahead = view.now - now.steady, now.ahead
        else:
            view.now = max(view.now, now.steady)  # the database's time, see `Engine.mark`

    def _begin(self) -> None:
        self._state.forget()
        self.view.rendering.forget()
        self._link.begin(BEGIN_READING)

    def _look(self, look: Callable[[Readable], None]) -> None:
        self._begin()
        try:
            look(self.view)
        finally:
            self._link.roll_back()

    def wait(self, seconds: float) -> None:
        """See `interface.Reading`: nothing is ever waited for."""

    def close(self) -> None:
        """See `interface.Reading`."""
        self._link.close()
