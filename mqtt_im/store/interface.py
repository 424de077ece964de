"""What jobs and queries need of a store: the ledger's engine on disk (`engine.Engine`), and its twin in memory.

Both are used by one thread at a time. `tests/contract` says what both promise, `tests/model` compares them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from mqtt_im.core import apply, model
from mqtt_im.core.entries import Entry
from mqtt_im.core.model import Amended, Conv, Device, User
from mqtt_im.core.records import AnyRecord, GroupChange, Message
from mqtt_im.core.rules import Limits

if TYPE_CHECKING:
    from .jobs import Job


class State(model.View, apply.State, Protocol):
    """What rules ask, what applying changes, and what is read for replies."""

    def user(self, name: str) -> User:
        """See `View`."""

    def record(self, lsn: int) -> AnyRecord | None:
        """The record of a log row; None where it is gone."""

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """The records of those log rows that are not gone."""

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """What became of the messages that these records, by log row, are or are about, where anything did."""

    def devices(self, user: str) -> dict[str, Device]:
        """The registered devices of a user, by name."""

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """`(pos, lsn)` of the items after `after` that are kept, at most `limit`; `lsn` is negative where one was replaced."""

    def messages(self, conv: Conv, first: int, last: int) -> list[tuple[int, int]]:
        """`(seq, lsn)` of the messages from `first` to `last`, both included, as far as they are kept."""

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        """The lowest, or else the highest, `seq` from `first` to `last` of a message that is kept."""

    def unread(self, conv: Conv, after: int, last: int, user: User) -> int:
        """How many messages of others, the system's aside, stand from after `after` to `last`."""

    def mentions(self, conv: Conv, after: int, last: int, user: User) -> set[int]:
        """The messages from after `after` to `last` that mention the user or everybody."""

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""

    def convs_of(self, user: User) -> Iterable[Conv]:
        """The conversations that a user is or was in."""


class Engine(Protocol):
    """A store at work on a batch of jobs."""

    @property
    def limits(self) -> Limits:
        """The bounds that rules obey."""

    @property
    def online(self) -> Container[str]:
        """The users with a connected device."""

    @property
    def now(self) -> int:
        """The time of the batch, in ms since 1970; never goes back."""

    @property
    def last(self) -> int:
        """The newest log row, the batch included."""

    @property
    def loaded_upto(self) -> int:
        """The newest log row when the server started."""

    @property
    def cut_off(self) -> Container[tuple[str, str]] | None:
        """User and device of all to which a former server may have offered what they have not acknowledged."""

    @property
    def state(self) -> State:
        """What the log says, the batch included."""

    def append(self, job: Job, record: AnyRecord) -> None:
        """The record is part of the batch and of the state."""

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """A record of this batch as devices see it now."""

    def entry(self, record: AnyRecord) -> Entry:
        """The record as devices see it now."""

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """Items of an inbox after `after`, at most `limit` and of about `max_bytes`, but one at least.

        Where items are gone, one entry stands for all that are missing up to its `pos`.
        """

    def connected(self, conv: Conv) -> list[str]:
        """The present members with a connected device; of large groups nobody."""

    def probe(self) -> None:
        """The store can commit. Raises `sqlite3.Error` where it can't."""
