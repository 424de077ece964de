"""What a batch has locked, and reads.

Everything is read anew for each batch, since other nodes may have changed it. Groups are locked before users, and each in one
order, so that two batches never wait for each other. What is asked for and not locked begins the batch anew (`Anew`), with that
locked too; what hangs on something locked is simply looked up.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final

from mqtt_im.core.model import Conv, Device, Member, Upload, User
from mqtt_im.protocol.names import members_of_direct
from mqtt_im.store.interface import Anew
from mqtt_im.store.wanted import Wanted

from . import tables
from .inbox import CHUNK, Inbox, unpack
from .large import LAGS, Group, Lag
from .look import Look, remembered
from .parts import Parts
from .telling import Telling
from .wire import BEGIN, Link, Statement, Step

MAX_NUMBERS: Final = 200_000
"""Users whose numbers are remembered."""
CIDS: Final = 1000
"""Numbers of conversations in one block (`schema`)."""
LSNS: Final = 2000
_BLOCK: Final = Statement("SELECT nextval('lsn')")
_MEMBERS: Final = Statement(
    tables.MEMBERS.sql.decode().replace("m.cid = ANY ($1)", "m.cid IN (SELECT cid FROM grp WHERE name = ANY ($1) AND NOT large)"),
    "T",
)
"""Those of large groups are looked up as somebody asks for them."""


class Locked(Look):
    """The part of the ledger's state that has nothing to do with what a batch changes."""

    telling: Telling

    def __init__(
        self,
        link: Link,
        has_account: Callable[[str], bool],
        upload: Callable[[str], Upload | None],
    ) -> None:
        super().__init__(link, has_account, upload)
        self.wanted = Wanted()
        self.deciding = False
        """Whether a transaction is open, so that only what is locked may be asked for."""
        self.clock = 0
        """The database's, in ms since 1970, when everything was locked."""
        self.last = 0
        """The newest log row that was given out."""
        self.stored_users: dict[int, Sequence[Any]] = {}
        """The rows of users as they were locked."""
        self._last_of_block = 0
        self._cids = iter(range(0))
        self._numbers: dict[str, int] = {}
        self._shells: dict[str, Conv] = {}
        """Groups that have a row, and no message yet."""

    def forget(self) -> None:
        """See `Look`."""
        super().forget()
        self.stored_users.clear()
        self._shells.clear()

    def begin(self, wanted: Wanted) -> None:
        """A transaction is open, and all of this is locked and in memory. Raises what `Link` raises."""
        self.wanted = wanted
        self.deciding = False
        self.forget()
        self.link.roll_back()
        convs = {user for pair in wanted.directs for user in pair}
        self._number(wanted.actors | wanted.users | convs, wanted.actors)
        if wanted.made:
            made = sorted(wanted.made)
            self.link.run(Step(tables.NEW_GROUPS, ([self._next_cid() for _ in made], made)))
        users = self._lock_groups(wanted) if wanted.groups or wanted.told or wanted.made else set()
        self._lock_users(wanted, users)
        self.deciding = True

    def _keep_group(self, row: Sequence[Any]) -> Group:
        group = super()._keep_group(row)
        group.host = self.telling
        return group

    def begin_nothing(self, wanted: Wanted) -> None:
        """A batch begins for which nothing is locked so far."""
        self.forget()
        self.wanted = wanted
        self.deciding = True

    def _number(self, names: set[str], actors: set[str]) -> None:
        """The numbers of these users are known; who was not there is made, if it acts or has an account."""
        numbers = self._numbers
        if len(numbers) > MAX_NUMBERS:
            numbers.clear()
        missing = sorted(names.difference(numbers))
        if not missing:
            return
        self._learn(self.link.one(tables.NUMBERS, missing))
        made = [name for name in missing if name not in numbers and (name in actors or self.has_account(name))]
        if made:
            # On its own, so that nobody waits for a name while it holds a lock.
            self.link.run(Step(tables.NEW_USERS, (made,)))
            self._learn(self.link.one(tables.NUMBERS, made))

    def _learn(self, rows: list[tuple[Any, ...]]) -> None:
        self._numbers.update((name, uid) for uid, name in rows)

    def _lock_groups(self, wanted: Wanted) -> set[int]:
        """The groups are locked; the numbers of the members who will get something."""
        names = sorted(wanted.groups | wanted.told | wanted.made)
        told = sorted(wanted.told)
        _, groups, members = self.link.run(Step(BEGIN), Step(tables.LOCK_GROUPS, (names,)), Step(_MEMBERS, (told,)))
        self._convs.update(dict.fromkeys(names))
        by_cid: dict[int, Group] = {}
        for row in groups.rows:
            conv = self._keep_group(row)
            by_cid[conv.cid] = conv
            conv.members = {} if conv.name in wanted.told and not conv.large else Parts(self, conv)
            if not conv.head:
                self._shells[conv.name] = conv
        users = set()
        for cid, uid, name, *part in members.rows:
            member = tables.read_member(part)
            by_cid[cid].members[name] = member
            self._numbers[name] = uid
            if member.active:
                users.add(uid)
        return users

    def _lock_users(self, wanted: Wanted, uids: set[int]) -> None:
        numbers = self._numbers
        names = wanted.actors | wanted.users
        named = {numbers[name]: name for name in names if name in numbers}
        uids |= named.keys()
        pairs = [(numbers[a], numbers[b]) for a, b in wanted.directs if a in numbers and b in numbers]
        keys = sorted([(a, b) if a < b else (b, a) for a, b in pairs])
        ids = [tables.hash_of(numbers[user], name) for user, name in wanted.ids if user in numbers]
        devices = {numbers[name]: name for name in wanted.devices if name in numbers and numbers[name] in uids}
        whole = sorted(numbers[name] for name in wanted.whole if name in numbers and numbers[name] in uids)
        begin = [] if self.link.in_transaction else [Step(BEGIN)]
        asked = [
            Step(statement, values)
            for statement, *values in (
                (tables.DIRECTS, [a for a, _ in keys], [b for _, b in keys]),
                (tables.DEVICES, sorted(devices)),
                (LAGS, whole),
            )
            if values[0]
        ]
        answers = self.link.run(*begin, Step(tables.LOCK_USERS, (sorted(uids),)), Step(tables.CLOCK_AND_IDS, (ids,)), *asked)[
            len(begin) :
        ]
        users, clock = answers[:2]
        found = {step.statement: answer.rows for step, answer in zip(asked, answers[2:], strict=True)}
        self._keep_users(users.rows)
        self.stored_users.update({row[0]: row for row in users.rows})
        for name in names.difference(self._users):
            self._users[name] = User(0, name)  # no account, so nothing is sent there
        self.last = clock.rows[0][0] - 1
        self._last_of_block = self.last + LSNS
        self.clock = max(self.clock, clock.rows[0][1])
        self._convs.update([(f"{a}:{b}", None) for a, b in wanted.directs])
        self._keep_directs(found.get(tables.DIRECTS, ()), named)
        self._requests.update(dict.fromkeys(ids))
        self._requests.update((data[:16], remembered(data[16:])) for data in clock.rows[0][2])
        self._keep_devices(devices, found.get(tables.DEVICES, ()))
        self._find_parts(uids, names)
        if lags := found.get(LAGS):
            self.telling.pull([Lag(*row) for row in lags], {user.uid: user for user in self._users.values()})

    def _find_parts(self, uids: set[int], names: set[str]) -> None:
        """What these users have to do with large groups that are locked is at hand."""
        large = {conv.cid: conv for conv in self._convs.values() if isinstance(conv, Group) and conv.large}
        if not large or not uids:
            return
        by_uid = {user.uid: name for name, user in self._users.items()}
        found: dict[int, dict[str, Member]] = {cid: {} for cid in large}
        for cid, uid, *part, pulled in self.link.one(tables.SOME_PARTS, list(large), sorted(uids)):
            found[cid][by_uid[uid]] = tables.read_member(part)
            self.telling.stored(cid, uid, pulled)
        for cid, conv in large.items():
            if isinstance(conv.members, Parts):
                conv.members.keep(found[cid], names)

    @property
    def newest_time(self) -> int:
        """When any of what is locked last had a record, in ms since 1970."""
        return max(self._times.values(), default=0)

    def next_lsn(self) -> int:
        """The log row of the next record."""
        if self.last == self._last_of_block:
            self.last = self.link.one(_BLOCK)[0][0] - 1
            self._last_of_block = self.last + LSNS
        self.last += 1
        return self.last

    def _next_cid(self) -> int:
        cid = next(self._cids, None)
        if cid is None:
            cid = self.link.one(tables.NUMBER_BLOCK)[0][0]
            self._cids = iter(range(cid + 1, cid + CIDS))
        return cid

    # Entities.

    def user(self, name: str) -> User:
        """See `View`. Raises `Anew`."""
        user = self._users.get(name)
        if user is not None:
            return user
        if self.deciding:
            self.wanted.users.add(name)
            raise Anew
        return super().user(name)

    def conv(self, name: str) -> Conv | None:
        """See `View`. Raises `Anew`."""
        if name in self._convs:
            return self._convs[name]
        if self.deciding and not self._locked(name):
            self.wanted.conv(name)
            raise Anew
        return super().conv(name)

    def _locked(self, name: str) -> bool:
        pair = members_of_direct(name)
        return pair is not None and pair[0] in self._users and pair[1] in self._users

    def part_of(self, conv: Conv, name: str) -> Member | None:
        """One member of a group, as the tables have it."""
        self._number({name}, set())
        uid = self._numbers.get(name)
        rows = [] if uid is None else self.link.one(tables.PART, conv.cid, uid)
        return tables.read_member(rows[0]) if rows else None

    def all_of(self, conv: Conv) -> dict[str, Member]:
        """All members of a group. Raises `Anew` while a batch is decided that has not asked for them, and would tell them."""
        if self.deciding and not conv.large:
            self.wanted.told.add(conv.name)
            raise Anew
        held = conv.members
        assert isinstance(held, Parts)
        found = {row[2]: tables.read_member(row[3:]) for row in self.link.one(tables.MEMBERS, [conv.cid])}
        found.update(held.held())
        if not conv.large:
            conv.members = found
        return found

    def _members_of(self, conv: Conv) -> MutableMapping[str, Member]:
        return super()._members_of(conv) if not self.deciding else Parts(self, conv)

    def _part_of(self, conv: Conv, name: str) -> Member | None:
        return self.part_of(conv, name)

    def devices(self, user: str) -> dict[str, Device]:
        """See `interface.State`. Raises `Anew`."""
        self.user(user)
        return super().devices(user)

    def inbox_of(self, user: User) -> Inbox:
        """The user's inbox."""
        return self._inboxes[user.uid]

    def number_of(self, user: str) -> int:
        """The number of a user who has a row."""
        return self._users[user].uid if user in self._users else self._numbers[user]

    def server_of(self, user: str, device: str) -> int:
        """Which server has the device's delivery, or had it last."""
        return self._servers.get((user, device), 0)

    def _chunk(self, user: User, pos: int) -> tuple[int, list[int]]:
        """The chunk of an item, to be changed."""
        inbox = self._inboxes[user.uid]
        for chunks in (inbox.full, inbox.changed):
            for first, refs in chunks.items():
                if first <= pos < first + len(refs):
                    return first, refs
        for first, data in self.link.one(tables.CHUNKS, user.uid, pos - CHUNK, pos, 1000):
            refs = unpack(data)
            if first <= pos < first + len(refs):
                inbox.changed[first] = refs
                return first, refs
        raise AssertionError(f"item {pos} of {user.name} is nowhere")
