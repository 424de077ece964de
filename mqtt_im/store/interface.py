"""What every store is: what jobs and queries ask of one (`Engine`), and how the ledger works with one (`Store`).

There are the engines on SQLite (`sqlite.engine.Engine`) and on PostgreSQL (`postgres.engine.Engine`), and a twin in memory
(`memory.engine.MemoryEngine`). Each is used by one thread at a time. `tests/contract` says what all promise, `tests/model`
compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from mqtt_im.clock import Times
from mqtt_im.core import state, view
from mqtt_im.core.entries import Entry
from mqtt_im.core.model import Amended, Conv, Device, Member, User
from mqtt_im.core.records import AnyRecord, Cursors, DeviceChange, GroupChange, Message
from mqtt_im.core.rules import Limits

from .commits import Author
from .policy import Ended, Policy
from .wanted import Asking


class Anew(Exception):
    """A batch needs what it has not said beforehand: it is decided anew, and the store has noted what is missing."""


class Later(Exception):
    """A job needs more done before it than one batch should bear: a part of that is done with this one, nothing of the job."""

    def __init__(self, weight: float = 0.0) -> None:
        """`weight` is what is done for it beside, in the measure of `Store.weight`."""
        self.weight = weight


RECEIPT_MEMBERS: Final = 200
"""In larger groups marks are not sent as events; `convs` tells them."""


class Seen(view.View, Protocol):
    """What rules ask, and what is read for replies."""

    def user(self, name: str) -> User:
        """See `View`."""

    def user_names(self, after: str, limit: int) -> list[str]:
        """Who has left a trace, by name, those behind `after`, at most `limit`."""

    def conv_for(self, name: str) -> Conv:
        """The conversation of this name, an empty one where there is none."""

    def record(self, lsn: int) -> AnyRecord | None:
        """The record of a log row; None where it is gone."""

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """The records of those log rows that are not gone."""

    def first_records(self, lsns: list[int], max_bytes: int) -> tuple[dict[int, AnyRecord], int]:
        """The same, until they have about so many bytes; and the first row that was left out for that, 0 for none."""

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

    def unread(self, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """How many messages of others stand in these parts (first and last `seq`), and how many mention the user or everybody.

        By conversation. What was recalled, or is the system's, is none of them.
        """

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""

    def latest(self, user: User, below: int, limit: int) -> list[tuple[int, Conv]]:
        """The user's conversations by activity, the latest first: those with one below that log row, at most `limit`.

        An activity is the log row of the newest message that the user may read; a conversation without one is not told.
        """

    def later(self, user: User, above: int, name: str, limit: int) -> list[tuple[int, Conv]]:
        """The user's conversations with an activity above that log row, by name: those after `name`, at most `limit`."""

    def marked(self, conv: Conv) -> list[tuple[str, Member]]:
        """The present members of a conversation who have got, or read, anything of it."""

    def conv_names(self, user: User) -> list[str]:
        """The names of all conversations that the user is or was in."""

    def has_more_conversations(self, user: User, than: int) -> bool:
        """Whether the user is or was in more than so many, about: one that was just changed may count twice."""

    def share_group(self, user: str, other: str) -> bool:
        """Whether two users are in one group now."""

    def in_log_order(self, user: User) -> bool:
        """Whether the items of the inbox surely stand in the order of the log: large groups may tell later what is older."""

    def waiting(self, user: User) -> int:
        """How many items have still to come to the inbox, which large groups have told already."""

    def not_taken(self, lsn: int) -> list[str]:
        """The members of a large group to whose inboxes what it has told with this row has still to come."""

    def acknowledged(self, user: User) -> int:
        """Up to which position of the inbox any device of the user has ever acknowledged."""


class State(Seen, state.State, Protocol):
    """What is seen, and what applying changes."""

    def user(self, name: str) -> User:
        """See `View`."""

    def conv_for(self, name: str) -> Conv:
        """See `core.state.State`."""


class Readable(Protocol):
    """A store as whoever only reads sees it."""

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
    def behind(self) -> int:
        """By how many ms the steady time (`mqtt_im.clock`) is behind `now`; 0 where it is about the same."""

    @property
    def ahead(self) -> int:
        """By how many ms the wall clock is ahead of the steady time."""

    @property
    def last(self) -> int:
        """The newest log row, the batch included."""

    @property
    def state(self) -> Seen:
        """What the log says, the batch included."""

    def entry(self, record: AnyRecord) -> Entry:
        """The record as devices see it now."""

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """Items of an inbox after `after`, at most `limit` and of about `max_bytes`, but one at least.

        Where items are gone, one entry stands for all that are missing up to its `pos`.
        """

    def connected(self, conv: Conv) -> list[str]:
        """The present members with a connected device; of large groups nobody."""


class Engine(Readable, Protocol):
    """A store at work on a batch of jobs."""

    @property
    def alone(self) -> bool:
        """Whether no other server works on it, so that a device may be served before it is committed that it has come."""

    @property
    def state(self) -> State:
        """See `Readable`; it can be changed."""

    def offered_upto(self, user: str, device: str) -> int:
        """The newest log row that another server may have offered to a device of which it is not known that it got everything.

        That is one that was there before this one, or has had the device before; 0 where none may have.
        """

    def delivers(self, user: str, device: str) -> bool:
        """Whether the device is registered, and no other server has its delivery by now."""

    def left(self, user: str, device: str) -> None:
        """It has gone without having acknowledged everything, and is offered nothing until it comes again: others may know."""

    def at_hand(self, user: str, group: str, names: Sequence[str] = (), brought: float = 0.0) -> None:
        """The members of a group are in memory, where the user is one of them, and so are these users. Raises `Later`.

        Of a group that nobody is in they are, whoever the user is; another conversation is left alone. Where so much was
        `brought` for the job before that all of it must have been there, and is not any more, it comes at once.
        """

    def pull_all(self, user: str) -> None:
        """The user's inbox has all that large groups have told by now, as far as these write it there later. Raises `Later`."""

    def pulled(self, users: Iterable[str]) -> tuple[dict[str, list[tuple[int, int]]], list[str]]:
        """What large groups have told these users with this batch, as `Seen.items` has it, and who of them has more to come."""

    def append(self, author: Author, record: AnyRecord) -> None:
        """The record is part of the batch and of the state."""

    def append_soon(self, author: Author, record: DeviceChange | Cursors) -> None:
        """Like `append`; but where the store can't commit now, the record is part of the next batch that it can."""

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """A record of this batch as devices see it now."""

    def probe(self) -> None:
        """The store can commit. Raises one of `Store.errors` where it can't."""


class Store(Engine, Protocol):
    """A store that the ledger's thread owns: it gathers records with `append`, and commits them."""

    errors: tuple[type[Exception], ...]
    """What a store that can't be read or written raises; anything else is a fault of ours."""
    now: int
    behind: int
    ahead: int
    """See `Engine`; set by the ledger before each batch."""
    mark: bytes | None
    """What `keep_mark` was given last, by whichever process; None where nothing was."""

    @property
    def epoch(self) -> str:
        """Names the store."""

    @property
    def changing(self) -> AbstractContextManager[object]:
        """Nobody looks at the state meanwhile; `prefetch` and `append` are called inside."""

    @property
    def weight(self) -> int:
        """What the batch has cost so far, in tenths of a small message: recipients and bytes count too."""

    @property
    def gathers_s(self) -> float:
        """So many seconds a batch waits for more where the last one had more jobs; 0 where a batch costs little by itself."""

    @property
    def crowded(self) -> bool:
        """Whether more is done already than is in its place on disk: jobs with many recipients wait for `side_work`."""

    def members_of(self, group: str) -> int:
        """How many are in a group, where that is at hand; else 0."""

    def prefetch(self, batch: Sequence[Asking]) -> None:
        """A batch of these jobs begins, and what they will ask for is at hand; a batch that was begun before has left nothing.

        What `Job.prepare` asks for beyond that may raise `Anew`.
        """

    def keep_mark(self, mark: bytes) -> None:
        """How the clocks stand is on disk (`mqtt_im.clock`). Raises one of `errors`."""

    def commit(self) -> None:
        """Everything appended is on disk. Raises one of `errors`; then the state is stale until `load`."""

    def load(self) -> None:
        """The state is what is on disk: what was appended and not committed has left nothing. Raises one of `errors`.

        Nobody else reads meanwhile.
        """

    def mends(self, error: Exception) -> bool:
        """Whether this is damage that the store mends by itself; until then only who meets it is concerned."""

    @property
    def mended(self) -> bool:
        """Whether what was damaged is ready to be replaced, or can't be."""

    def replace(self) -> None:
        """What was damaged is whole, if it could be mended. Nobody else reads meanwhile. Raises one of `errors`."""

    def side_work(self, jobs: int, waiting: Callable[[], bool] = lambda: False) -> None:
        """A part of what is due beside the batches was done; the last one had so many jobs. Raises one of `errors`.

        Once `waiting` says that somebody waits for the next one, no more is begun than memory makes necessary.
        """

    def pause(self) -> float | None:
        """Seconds until `side_work` has something to do; None where nothing waits."""

    def reading(self) -> Reading:
        """What reads beside this, for another thread, which opens and closes it. Raises one of `errors`."""

    @property
    def emptied(self) -> bool:
        """Whether what was taken back is gone from the write-ahead file of the log too, where the store has one of its own."""

    def retain(self, policy: Policy, now: int, ended: Ended) -> None:
        """A pass of retention is wanted, and is done by `side_work`; `now` is ms since 1970."""

    def abandon(self, reason: str) -> None:
        """A pass that is under way is over: the state it works on is not there any more."""

    def close(self) -> None:
        """Everything is written, as far as the disk lets it, and the files are closed."""


class Reading(Protocol):
    """A store as the reader's thread has it: what is committed, whatever the ledger's thread does meanwhile."""

    errors: tuple[type[Exception], ...]
    """See `Store`."""
    gathers: bool
    """Whether many looks at inboxes are cheaper `together`."""

    def together(self, fetches: Sequence[tuple[str, int, int]]) -> AbstractContextManager[None]:
        """Inside, `run` is called for looks at these inboxes: user, after which item, and how many items.

        They may see one moment, and what they will ask for is at hand. Raises one of `errors`.
        """

    def run(self, look: Callable[[Readable], None], tell: Callable[[], None], now: Times, exact: bool = False) -> bool:
        """`look` has seen one moment, and `tell` was called before any later commit that touches that could be told.

        That is a change to a message that was shown, or, with `exact`, to a user that was looked at.
        False where it has to see what is not committed yet: then it is to be called again a little later. Raises what `look`
        raises, and one of `errors`; then nothing was told.
        """

    def wait(self, seconds: float) -> None:
        """What the last look that failed has waited for is committed, or so many seconds are over."""

    def close(self) -> None:
        """The files are closed."""
