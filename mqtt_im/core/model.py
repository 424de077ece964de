"""The entities that records change.

They live in the ledger's thread. `core.apply` is the only code that changes them, with `core.members`; who reads on another
thread has copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence, Set
from typing import ClassVar, Final, NamedTuple, Protocol, TypeVar

FOREVER = 2**62
EVERYTHING = [[1, FOREVER]]
"""The spans of who sees a whole conversation, shared by all members of direct ones; never changed in place."""


_NOBODY: Final[Set[str]] = frozenset()
_NOTHING: Final[Mapping[str, int]] = {}
"""What most users have, and so share."""


class Entity:
    """Has a copy made of itself, for who looks at it on another thread; `FIELDS` names all that one of a kind holds."""

    FIELDS: ClassVar[tuple[str, ...]] = ()
    __slots__ = ()


_E = TypeVar("_E", bound=Entity)


def _copied(of: _E, made: _E) -> _E:
    """`made` with the values of the other. What hangs on that is shared, and is replaced and not changed, as members are."""
    for name in of.FIELDS:
        setattr(made, name, getattr(of, name))
    return made


class User(Entity):
    """One user: how far the inbox reaches, and what the user has set."""

    FIELDS = (
        "acked",
        "begin",
        "blocks",
        "changed",
        "floor",
        "gone",
        "gone_bytes",
        "head",
        "joined",
        "made",
        "mutes",
        "name",
        "presence",
        "read_receipts",
        "registered",
        "sent",
        "sent_bytes",
        "uid",
    )
    __slots__ = FIELDS

    def __init__(self, uid: int, name: str) -> None:
        self.uid = uid
        self.name = name
        self.head = 0
        """`pos` of the newest item."""
        self.floor = 0
        """Items up to it are gone."""
        self.begin = 0
        """Items up to it were those of a former user of this name, and are shown to nobody."""
        self.acked = 0
        """The highest cursor to which any device ever got."""
        self.registered = False
        """Whether a device was ever registered, so that the next one starts at the head."""
        self.blocks: Set[str] = _NOBODY
        self.mutes: Mapping[str, int] = _NOTHING
        self.read_receipts = True
        self.presence = True
        self.changed = 0
        """Log row of the last change, as far as it is remembered."""
        self.sent = 0
        """Messages that the user has sent …"""
        self.sent_bytes = 0
        """… and the bytes of what they say now (`core.usage`)."""
        self.gone = 0
        """Those of them that retention has taken …"""
        self.gone_bytes = 0
        """… and their bytes."""
        self.joined = 0
        """Groups that the user is in."""
        self.made = 0
        """Groups that the user has made and somebody is in."""

    def copied(self) -> User:
        """See `Entity`; written out, since thousands may have to be copied for one message."""
        made = User(self.uid, self.name)
        made.head, made.floor, made.begin, made.acked = self.head, self.floor, self.begin, self.acked
        made.registered, made.blocks, made.mutes = self.registered, self.blocks, self.mutes
        made.read_receipts, made.presence, made.changed = self.read_receipts, self.presence, self.changed
        made.sent, made.sent_bytes, made.gone, made.gone_bytes = self.sent, self.sent_bytes, self.gone, self.gone_bytes
        made.joined, made.made = self.joined, self.made
        return made

    @property
    def lowest(self) -> int:
        """Items up to it are gone, or were a former user's."""
        return max(self.floor, self.begin)

    @property
    def kept(self) -> int:
        """The user's messages that are kept."""
        return self.sent - self.gone

    @property
    def kept_bytes(self) -> int:
        """The bytes of what the user has sent and is kept."""
        return max(0, self.sent_bytes - self.gone_bytes)


class Device(Entity):
    """One registered device."""

    FIELDS = ("app", "created", "cursor", "device", "exposed", "n", "seen", "user")
    __slots__ = FIELDS

    def __init__(self, user: str, device: str, created: int) -> None:
        self.user = user
        self.device = device
        self.cursor = 0
        """Everything up to this `pos` is acknowledged."""
        self.app = False
        """Only `ack` moves the cursor."""
        self.n = 0
        """The last counter used."""
        self.exposed = False
        """Whether it may have been offered items that it has not acknowledged: its delivery has begun, and has not ended with
        nothing in flight. Still so when the server was killed meanwhile."""
        self.created = created
        self.seen = created
        """When it was registered, and seen last, by the steady time."""

    def copied(self) -> Device:
        """See `Entity`."""
        return _copied(self, Device(self.user, self.device, self.created))


class Member(Entity):
    """A user's part in a conversation, present or past."""

    FIELDS = ("active", "delivered", "last", "order", "read", "role", "spans")
    __slots__ = FIELDS

    def __init__(self, order: int, role: str = "member") -> None:
        self.order = order
        """When the member came, as a `seq`: the longest-standing has the lowest."""
        self.role = role
        self.active = True
        self.spans: list[list[int]] = []
        """`[first, last]` seqs of what the member may read; the last span of an active member ends at `FOREVER`."""
        self.read = 0
        self.delivered = 0
        self.last = 0
        """Log row of the newest message that the member may read, where that is not the conversation's newest."""

    def copied(self) -> Member:
        """See `Entity`; written out, since a change to a large group copies thousands."""
        made = Member(self.order, self.role)
        made.active, made.spans = self.active, self.spans
        made.read, made.delivered, made.last = self.read, self.delivered, self.last
        return made

    def sees(self, seq: int) -> bool:
        """Whether the message `seq` lies in what this member may read."""
        return any(first <= seq <= last for first, last in self.spans)

    def newest(self, head: int) -> int:
        """The newest message up to `head` that this member may read; 0 where there is none."""
        return next((min(last, head) for first, last in reversed(self.spans) if first <= head), 0)

    def activity(self, conv: Conv) -> int:
        """Log row of the newest message of the conversation that this member may read; 0 where there is none."""
        return conv.lsn if self.spans is EVERYTHING or self.sees(conv.head) else self.last

    def hide(self, seq: int) -> None:
        """The newest message of the conversation, `seq`, is none that this member may read."""
        *former, [first, _] = self.spans
        self.spans = [*former, [seq + 1, FOREVER]] if first == seq else [*former, [first, seq - 1], [seq + 1, FOREVER]]


class Conv(Entity):
    """One conversation, direct or group."""

    FIELDS = (
        "_find",
        "_load",
        "_members",
        "_names",
        "born",
        "changed",
        "cid",
        "group",
        "head",
        "large",
        "lsn",
        "maker",
        "name",
        "size",
        "title",
        "users",
    )
    __slots__ = FIELDS

    def __init__(
        self,
        cid: int,
        name: str,
        load: Callable[[Conv], MutableMapping[str, Member]] | None = None,
        find: Callable[[Conv, str], Member | None] | None = None,
    ) -> None:
        """`load` reads all members when somebody asks for them; `find` reads one of many."""
        self.cid = cid
        self.name = name
        self.group = name[0] == "#"
        self.users: list[str] | None = None
        """The users of a direct conversation, in the order of its name; None of a group."""
        if not self.group:
            first, _, second = name.partition(":")
            self.users = [first] if first == second else [first, second]
        self.head = 0
        """`seq` of the newest message."""
        self.lsn = 0
        """Log row of the newest message."""
        self.title = ""
        self.changed = 0
        """Log row of the last change, those of members included, as far as it is remembered."""
        self.size = 0
        """Present members of a group."""
        self.born = 1
        """The message that made the group; what came before, others have said who have all left."""
        self.maker = ""
        """Who has made the group, as long as somebody is in it."""
        self.large = False
        """Whether its members take what they are told into their inboxes one by one, later (`store.postgres.large`)."""
        self._load = load
        self._find = find
        self._members: MutableMapping[str, Member] | None = None if load is not None else {}
        self._names: list[str] | None = None
        """Who is in it, where that was kept of members who are not in memory."""

    def copied(self) -> Conv:
        """See `Entity`."""
        return _copied(self, Conv(self.cid, self.name))

    @property
    def members(self) -> MutableMapping[str, Member]:
        """Each member's part, present or past, in the order in which they came; read when it is first asked for."""
        if self._members is None:
            assert self._load is not None
            self._members = self._load(self)
        return self._members

    @members.setter
    def members(self, members: MutableMapping[str, Member]) -> None:
        self._members = members

    @property
    def loaded(self) -> bool:
        """Whether its members are in memory."""
        return self._members is not None

    def unload(self) -> None:
        """The members are read again when somebody asks; they are stored as they are."""
        assert self._load is not None
        self._members = self._names = None

    def unload_but_names(self) -> int:
        """The same, but for the names of who is in it now; returns how many those are."""
        names = self.present_names
        self.unload()
        self._names = names
        return len(names)

    @property
    def present_names(self) -> list[str]:
        """Who is in it now, in the order in which they came; not to be changed."""
        if self._members is None and self._names is not None:
            return self._names
        return [name for name, member in self.members.items() if member.active]

    def shown(
        self, load: Callable[[Conv], MutableMapping[str, Member]], find: Callable[[Conv, str], Member | None] | None = None
    ) -> Conv:
        """A copy, whose members are read by `load` and `find` when somebody asks."""
        made = self.copied()
        made._load, made._find, made._members, made._names = load, find, None, None  # noqa: SLF001 - of its own kind
        return made

    def part(self, user: str) -> Member | None:
        """The user's part, present or past, without reading those of all others; not to be changed."""
        if self._members is None and self._find is not None:
            return self._find(self, user)
        return self.members.get(user)

    def own(self, user: str) -> Member:
        """A member's part, to be changed: a copy in place of the former, which others may be looking at."""
        made = self.members[user] = self.members[user].copied()
        return made

    def catch_up(self, users: Sequence[str]) -> None:
        """The inboxes of those of these who are members have everything that the conversation has told so far.

        Where that is much this may raise that it is to be asked again, with a later batch.
        """

    def member(self, user: str) -> Member | None:
        """The user's part, if it is in the conversation now."""
        member = self.part(user)
        return member if member is not None and member.active else None

    def present(self, names: Sequence[str]) -> list[str]:
        """Those of these names who are in the conversation now."""
        found = self._members
        if found is None:
            return [name for name in names if self.member(name) is not None]
        return [name for name in names if name in found and found[name].active]

    def others(self, names: Sequence[str]) -> list[str]:
        """Those of these names who are not."""
        present = set(self.present(names))
        return [name for name in names if name not in present]


def weigh(members: Mapping[str, Member]) -> int:
    """What a group's members, present and past, take: each counts as often as it has come."""
    return sum([len(member.spans) for member in members.values()])


def readers(conv: Conv, seq: int) -> list[str]:
    """Who gets an item that tells of something that became of the message `seq`."""
    if conv.users is not None:
        return [name for name in conv.users if conv.members[name].sees(seq)]
    return conv.present_names


def marked_of(conv: Conv) -> list[tuple[str, Member]]:
    """The present members of a conversation who have got, or read, anything of it."""
    return [(name, part) for name, part in conv.members.items() if part.active and (part.delivered or part.read)]


def former_readers(conv: Conv, seq: int) -> list[str]:
    """Who was in a group, and may read the message `seq` for ever, but is told nothing more of it."""
    if conv.users is not None:
        return []
    return [name for name, member in conv.members.items() if not member.active and member.sees(seq)]


class Amended(Entity):
    """What became of one message after it was sent."""

    FIELDS = ("edited", "edits", "reactions", "recalled", "size")
    __slots__ = FIELDS

    def __init__(self) -> None:
        self.edits = 0
        """How often it was edited."""
        self.edited = 0
        """Log row of the newest edit; the older ones have no content any more."""
        self.size = 0
        """Bytes of the newest edit."""
        self.recalled = False
        self.reactions: dict[str, str] = {}
        """User → emoji."""

    def copied(self) -> Amended:
        """See `Entity`; this one is changed in place."""
        made = _copied(self, Amended())
        made.reactions = dict(self.reactions)
        return made


class Carriers(Protocol):
    """Messages that carry a file, and some that do not, or do not any more. They are read as far as somebody looks at them."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """`(conv, seq)` of each, the newest of a conversation first, and mostly those of one behind each other."""

    def groups(self) -> set[str]:
        """The groups in which they are."""


class Upload(NamedTuple):
    """A file that somebody has uploaded, and the messages that were ever to carry it."""

    id: str
    owner: str
    """Who uploaded it."""
    name: str
    type: str
    """Its media type, without parameters."""
    size: int
    """Bytes."""
    carriers: Carriers
