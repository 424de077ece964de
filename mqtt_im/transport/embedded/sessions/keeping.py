"""What one plain message is for kept sessions on its way to the disk: all of it comes there with one transaction, or nothing.

It is made a little in each turn of the loop where the sessions are many, and handed to the disk when all is made: so whoever
publishes again what has no acknowledgement never finds it half done.
"""

from __future__ import annotations

from typing import NamedTuple

from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.persistence import Parameters, Statement
from mqtt_im.transport.embedded.sessions.session import Message, Session


class Promise(NamedTuple):
    """What is to survive of a session besides, with the same transaction."""

    session: Session
    statement: Statement


class Reach(NamedTuple):
    """Whom a plain message has reached."""

    filters: int
    """That have matched."""
    looked: int
    """Places of the tree of filters that were looked at for it."""
    kept: int
    """Sessions that keep it on disk."""


class Keeping:
    """The copies of one message."""

    __slots__ = ("_promise", "_rows", "messages")

    def __init__(self, promise: Promise | None = None) -> None:
        self._promise = promise
        self._rows: list[Parameters] = []
        self.messages: list[tuple[Session, Message]] = []
        """For whom, in the order in which they were made."""

    def add(self, session: Session, message: Message, row: Parameters) -> None:
        """One more, for a session to which it comes behind what was on its way before."""
        session.writes(message)
        self._rows.append(row)
        self.messages.append((session, message))

    def statements(self) -> list[Statement]:
        """What is to be written, of sessions that have not ended meanwhile."""
        promise = self._promise
        first = [promise.statement] if promise is not None and promise.session.kept else []
        rows = zip(self.messages, self._rows, strict=True)
        return first + [(sql.ENQUEUE, row) for (session, _), row in rows if session.kept]
