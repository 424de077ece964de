"""The ledger's state: what a batch has locked and read, and what it changes of that.

Everything is read anew for each batch, since other nodes may have changed it. Groups are locked before users, and each in one
order, so that two batches never wait for each other. What is asked for and not locked begins the batch anew (`Anew`), with that
locked too; what hangs on something locked is simply looked up.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, Sequence, ValuesView
from typing import Any, Final

from mqtt_im.core.apply import apply
from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, Upload, User
from mqtt_im.core.records import Act, AnyRecord, DeviceChange, GroupChange, Reported
from mqtt_im.protocol.names import direct, members_of_direct
from mqtt_im.store.interface import Anew
from mqtt_im.store.wanted import Wanted

from . import tables
from .inbox import CHUNK, Inbox, unpack
from .large import FORMER, LAGS, PAGE, PULLED, TOLD, Group, Lag, Told, taken
from .look import Look, remembered
from .node import Fence, Inherited
from .wire import BEGIN, Link, Statement, Step

MAX_NUMBERS: Final = 200_000
"""Users whose numbers are remembered."""
CIDS: Final = 1000
"""Numbers of conversations in one block (`schema`)."""
LSNS: Final = 2000
_CLOCK: Final = Statement("SELECT nextval('lsn'), (extract(epoch FROM clock_timestamp()) * 1000)::int8")
_MEMBERS: Final = Statement(
    tables.MEMBERS.sql.decode().replace("m.cid = ANY ($1)", "m.cid IN (SELECT cid FROM grp WHERE name = ANY ($1) AND NOT large)"),
    "T",
)
"""Those of large groups are looked up as somebody asks for them."""


class Parts(MutableMapping[str, Member]):
    """Members of a group, read one by one as they are asked for; who wants to see them all has to have told so."""

    def __init__(self, state: Work, conv: Conv) -> None:
        self._state = state
        self._conv = conv
        self._held: dict[str, Member] = {}
        self._absent: set[str] = set()

    def _known(self, name: str) -> bool:
        if name in self._held:
            return True
        if name not in self._absent:
            member = self._state.part_of(self._conv, name)
            if member is not None:
                self._held[name] = member
                return True
            self._absent.add(name)
        return False

    def __getitem__(self, name: str) -> Member:
        if not self._known(name):
            raise KeyError(name)
        return self._held[name]

    def __setitem__(self, name: str, member: Member) -> None:
        self._held[name] = member

    def __delitem__(self, name: str) -> None:
        if not self._conv.large:
            del self._state.all_of(self._conv)[name]
        elif self._known(name):
            del self._held[name]
        else:
            raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._known(name)

    def keep(self, found: dict[str, Member], asked: Iterable[str]) -> None:
        """These were looked up together."""
        self._held.update(found)
        self._absent.update(name for name in asked if name not in found)

    def held(self) -> dict[str, Member]:
        """Those that were read or set."""
        return self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._state.all_of(self._conv))

    def __len__(self) -> int:
        return len(self._state.all_of(self._conv))

    def keys(self) -> KeysView[str]:
        """See `dict`."""
        return self._state.all_of(self._conv).keys()

    def values(self) -> ValuesView[Member]:
        """See `dict`."""
        return self._state.all_of(self._conv).values()

    def items(self) -> ItemsView[str, Member]:
        """See `dict`."""
        return self._state.all_of(self._conv).items()


class Work(Look):
    """`interface.State` for the ledger, with what `core.apply.State` asks."""

    def __init__(
        self,
        link: Link,
        fence: Fence,
        has_account: Callable[[str], bool],
        claim: Callable[[str, int], bool],
        upload: Callable[[str], Upload | None],
        began_at: int,
        cut_off: Mapping[tuple[str, str], int],
        inherited: Inherited,
        most_at_once: int,
    ) -> None:
        """`began_at` is the newest log row when this server began, `cut_off` what those before it have left (`Fence`).

        A group with more than `most_at_once` members becomes large.
        """
        super().__init__(link, has_account, upload)
        self._most_at_once = most_at_once
        self._fence = fence
        self._take_back = claim
        self._began_at = began_at
        self._cut_off = cut_off
        self._inherited = inherited
        self.wanted = Wanted()
        self.deciding = False
        """Whether a transaction is open, so that only what is locked may be asked for."""
        self.clock = 0
        """The database's, in ms since 1970, when everything was locked."""
        self.last = 0
        """The newest log row that was given out."""
        self._last_of_block = 0
        self._cids = iter(range(0))
        self._numbers: dict[str, int] = {}
        self._groups: set[str] = set()
        """Groups that are locked, or were not there."""
        self._shells: dict[str, Conv] = {}
        """Groups that have a row, and no message yet."""
        self._forget_changes()

    def _forget_changes(self) -> None:
        self.changed_users: dict[str, User] = {}
        self.stored_users: dict[int, Sequence[Any]] = {}
        """The rows of users as they were locked."""
        self.replaced: set[int] = set()
        """Users of whose items one was replaced."""
        self.voided: set[int] = set()
        """Conversations of which somebody's item was replaced."""
        self.moved: set[tuple[str, str]] = set()
        """Devices to which a server that this one has not found dead may have offered something until now."""
        self.acked_anew: set[str] = set()
        """Users whose own mark of what was acknowledged has to be written."""
        self.changed_convs: dict[str, Conv] = {}
        self.fresh_directs: dict[str, Conv] = {}
        self.changed_members: set[tuple[str, str]] = set()
        self.changed_devices: dict[tuple[str, str], Device | None] = {}
        self.changed_amended: dict[tuple[int, int], Amended] = {}
        self.counts: dict[tuple[int, int, int], int] = {}
        self.rows: dict[int, list[Any]] = {}
        """Log row → `[cid, seq, by, id hash, record]` of what the batch appends."""
        self.hidden: set[tuple[int, int]] = set()
        """Messages of former batches that count as unread for nobody any more."""
        self.mentions: list[tuple[int, str, int]] = []
        self.packets: dict[tuple[int, str, str, int], int] = {}
        self.keys: dict[tuple[int, int, str], int] = {}
        self._said: dict[tuple[int, int], int] = {}
        """Messages of the batch, by cid and seq."""
        self.told: dict[tuple[int, int], Told] = {}
        """cid and act of a large group → what the batch has told its members."""
        self._formers: dict[int, int] = {}
        """Log row of a message to a large group with a `key` → that of the one before it."""
        self.pulled: dict[tuple[int, int], int] = {}
        """cid and uid of a member → up to which act the inbox has what a large group tells."""
        self._pulled_before: dict[tuple[int, int], int] = {}
        """The same as it was stored, as far as it was looked up."""
        self.came: dict[str, list[tuple[int, int]]] = {}
        """User → `(pos, log row)` of what the batch has pulled."""
        self.short: set[str] = set()
        """Users who have more to pull."""
        self._at = 0
        self._recent: dict[int, AnyRecord] = {}

    def forget(self) -> None:
        """See `Look`; what the batch has changed is forgotten too."""
        super().forget()
        self._groups.clear()
        self._shells.clear()
        self._forget_changes()

    # What is locked.

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
        group.host = self
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
        missing = sorted(name for name in names if name not in numbers)
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
        self._groups.update(names)
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
        uids |= {numbers[name] for name in names if name in numbers}
        pairs = [(a, b) for a, b in wanted.directs if a in numbers and b in numbers]
        keys = sorted({tuple(sorted((numbers[a], numbers[b]))) for a, b in pairs})
        ids = [tables.hash_of(numbers[user], name) for user, name in wanted.ids if user in numbers]
        devices = {numbers[name]: name for name in wanted.devices if name in numbers and numbers[name] in uids}
        steps = [] if self.link.in_transaction else [Step(BEGIN)]
        steps += [
            Step(tables.LOCK_USERS, (sorted(uids),)),
            Step(_CLOCK),
            Step(tables.DIRECTS, ([a for a, _ in keys], [b for _, b in keys])),
            Step(tables.IDS, (ids,)),
            Step(tables.DEVICES, (sorted(devices),)),
        ]
        whole = sorted(numbers[name] for name in wanted.whole if name in numbers and numbers[name] in uids)
        if whole:
            steps.append(Step(LAGS, (whole,)))
        answers = self.link.run(*steps)[-6 if whole else -5 :]
        users, clock, directs, requests, found = answers[:5]
        self._keep_users(users.rows)
        self.stored_users.update((row[0], row) for row in users.rows)
        for name in names:
            if name not in self._users:
                self._users[name] = User(0, name)  # no account, so nothing is sent there
        self.last = clock.rows[0][0] - 1
        self._last_of_block = self.last + LSNS
        self.clock = max(self.clock, clock.rows[0][1])
        self._convs.update((direct(a, b), None) for a, b in wanted.directs)
        self._keep_directs(directs.rows, {self._users[name].uid: name for pair in pairs for name in pair})
        self._requests.update(dict.fromkeys(ids))
        self._requests.update((key, remembered(data)) for key, data in requests.rows)
        self._keep_devices(devices, found.rows)
        self._find_parts(uids, names)
        if whole and answers[5].rows:
            self._pull([Lag(*row) for row in answers[5].rows])

    def _find_parts(self, uids: set[int], names: set[str]) -> None:
        """What these users have to do with large groups that are locked is at hand."""
        large = {conv.cid: conv for conv in self._convs.values() if isinstance(conv, Group) and conv.large}
        if not large or not uids:
            return
        by_uid = {user.uid: name for name, user in self._users.items()}
        found: dict[int, dict[str, Member]] = {cid: {} for cid in large}
        for cid, uid, *part, pulled in self.link.one(tables.SOME_PARTS, list(large), sorted(uids)):
            found[cid][by_uid[uid]] = tables.read_member(part)
            self._pulled_before[cid, uid] = pulled
        for cid, conv in large.items():
            if isinstance(conv.members, Parts):
                conv.members.keep(found[cid], names)

    # What large groups tell.

    def _pull(self, lags: list[Lag]) -> None:
        """The inboxes of these users, who are locked, have what large groups tell, the oldest first, as far as a page goes."""
        refs, closed, behind = taken(lags, self.link.one(TOLD, *zip(*lags, strict=True), PAGE), PAGE)
        self.pulled.update(closed)
        names = {user.uid: name for name, user in self._users.items()}
        self.short.update(names[uid] for uid in behind)
        for uid, items in refs.items():
            self._come(self._users[names[uid]], items)

    def _come(self, user: User, items: Sequence[Told]) -> None:
        came = self.came.setdefault(user.name, [])
        replaced = {item.former for item in items}
        for lsn, _ in items:
            user.head += 1
            ref = -lsn if lsn in replaced else lsn
            self.put_item(user, user.head, ref, None)
            came.append((user.head, ref))

    def pull_all(self, user: User) -> None:
        """The user's inbox has all that large groups have told by now. Raises `Anew` where the user is not locked."""
        user = self.user(user.name)
        while user.name in self.short:
            self.short.discard(user.name)
            lags = [Lag(*row) for row in self.link.one(LAGS, [user.uid])]
            lags = [lag._replace(pulled=self.pulled.get((lag.cid, lag.uid), lag.pulled)) for lag in lags]
            self._pull([lag for lag in lags if lag.pulled < lag.acts])

    def catch_up(self, conv: Group, users: Sequence[str]) -> None:
        """See `Group`. What the batch itself has told so far is among it. Raises `Anew` where one is not locked."""
        members = {owner.uid: owner for owner in map(self.user, users) if conv.member(owner.name) is not None}
        at: dict[int, int] = {}
        for known in (self._pulled_before, self.pulled):
            at.update((uid, known[conv.cid, uid]) for uid in members if (conv.cid, uid) in known)
        if missing := [uid for uid in members if uid not in at]:
            at.update(dict.fromkeys(missing, 0))  # of who has joined with this batch, before the group was large
            at.update(self.link.one(PULLED, conv.cid, missing))
        lags = [Lag(uid, conv.cid, pulled, conv.stored) for uid, pulled in at.items() if pulled < conv.stored]
        come: dict[int, list[Told]] = {}
        if lags:
            rows = self.link.one(TOLD, *zip(*lags, strict=True), sum(lag.acts - lag.pulled for lag in lags))
            for uid, _, _, *told in rows:
                come.setdefault(uid, []).append(Told(*told))
        for uid, owner in members.items():
            now = [self.told[conv.cid, act] for act in range(max(at[uid], conv.stored) + 1, conv.acts + 1)]
            if items := come.get(uid, []) + now:
                self._come(owner, items)
            self.pulled[conv.cid, uid] = conv.acts

    def _tell(self, conv: Group, lsn: int, record: Act, names: Sequence[str]) -> None:
        """What was just applied is told to the members of the group, if it is a large one; these have it."""
        if not conv.large:
            conv.large = conv.size > self._most_at_once
        elif not isinstance(record, Reported):
            conv.acts += 1
            self.told[conv.cid, conv.acts] = Told(lsn, self._formers.get(lsn, 0))
            self.touch_conv(conv)
            joined = (record.members or ()) if isinstance(record, GroupChange) else ()
            for name in (*names, *joined):
                self.pulled[conv.cid, self.user(name).uid] = conv.acts

    @property
    def newest_time(self) -> int:
        """When any of what is locked last had a record, in ms since 1970."""
        return max(self._times.values(), default=0)

    def next_lsn(self) -> int:
        """The log row of the next record."""
        if self.last == self._last_of_block:
            self.last = self.link.one(_CLOCK)[0][0] - 1
            self._last_of_block = self.last + LSNS
        self.last += 1
        return self.last

    def _next_cid(self) -> int:
        cid = next(self._cids, None)
        if cid is None:
            cid = self.link.one(tables.NUMBER_BLOCK)[0][0]
            self._cids = iter(range(cid + 1, cid + CIDS))
        return cid

    @property
    def has_changes(self) -> bool:
        """Whether the batch is to be committed."""
        return bool(self.rows or self.changed_users or self.changed_members or self.changed_devices or self.changed_convs)

    @property
    def amended_convs(self) -> set[str]:
        """Conversations of which the batch has changed a message that was there, something about it, or who has it."""
        cids = {*self.voided, *(cid for cid, _ in self.changed_amended)}
        return {conv.name for conv in self._convs.values() if conv is not None and conv.cid in cids}

    def committed(self) -> None:
        """What was changed stands in the tables; it may still be looked at."""
        self.deciding = False

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

    def touch_user(self, user: User) -> None:
        """See `core.apply.State`."""
        self.changed_users[user.name] = user

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

    def conv_for(self, name: str) -> Conv:
        """See `core.apply.State`."""
        conv = self.conv(name)
        if conv is None:
            if name[0] == "#":
                if name not in self._shells:
                    self.wanted.made.add(name)
                    raise Anew
                conv = self._convs[name] = self._shells[name]
                return conv
            conv = self._convs[name] = self.fresh_directs[name] = Conv(self._next_cid(), name)
            for order, user in enumerate(conv.users or ()):
                conv.members[user] = member = Member(order)
                member.spans = EVERYTHING
        return conv

    def touch_conv(self, conv: Conv) -> None:
        """See `core.apply.State`."""
        self.changed_convs[conv.name] = conv

    def touch_member(self, conv: Conv, name: str) -> None:
        """See `core.apply.State`."""
        self.changed_members.add((conv.name, name))

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

    def conv_names(self, user: User) -> list[str]:
        """See `interface.State`. All of them will be asked for, so they are locked. Raises `Anew`."""
        names = dict.fromkeys(super().conv_names(user))
        names.update(dict.fromkeys(name for name in self.fresh_directs if user.name in name.split(":")))
        for name, member in self.changed_members:
            if member == user.name:
                names[name] = None
        if self.deciding:
            missing = [name for name in names if name not in self._convs]
            for name in missing:
                self.wanted.conv(name)
            if missing:
                raise Anew
        return list(names)

    # Devices.

    def devices(self, user: str) -> dict[str, Device]:
        """See `interface.State`. Raises `Anew`."""
        self.user(user)
        return super().devices(user)

    def device_for(self, user: str, device: str, now: int) -> Device:
        """See `core.apply.State`."""
        devices = self.devices(user)
        if device not in devices:
            devices[device] = Device(user, device, now)
        return devices[device]

    def touch_device(self, device: Device) -> None:
        """See `core.apply.State`."""
        self.changed_devices[device.user, device.device] = device

    def drop_device(self, user: str, device: str) -> None:
        """See `core.apply.State`."""
        owner = self.user(user)
        self.devices(user).pop(device, None)
        owner.acked = max(owner.acked, self._acked.pop((user, device), 0))
        self._servers.pop((user, device), None)
        self.acked_anew.add(user)
        self.touch_user(owner)
        self.changed_devices[user, device] = None

    def acked_of(self, user: str, device: str) -> int:
        """Up to where the device has acknowledged; what its user's mark has grown by in the batch counts as this one's."""
        owner = self._users[user]
        stored = self.stored_users[owner.uid]
        return max(self._acked.get((user, device), 0), owner.acked if owner.acked > stored[9] else 0)

    def inbox_of(self, user: User) -> Inbox:
        """The user's inbox."""
        return self._inboxes[user.uid]

    def time_of(self, conv: str) -> int:
        """When the conversation last had a record, in ms since 1970."""
        return self._times.get(conv, 0)

    def number_of(self, user: str) -> int:
        """The number of a user who has a row."""
        return self._users[user].uid if user in self._users else self._numbers[user]

    def server_of(self, user: str, device: str) -> int:
        """Which server has the device's delivery, or had it last."""
        return self._servers.get((user, device), 0)

    def claim(self, user: str, pos: int) -> bool:
        """See `View`."""
        for name, device in self.devices(user).items():
            if self._acked.get((user, name), 0) >= pos:
                return False
            if device.exposed and not self._is_ours(user, name, pos):
                return False
        return self._take_back(user, pos)

    def _is_ours(self, user: str, device: str, pos: int) -> bool:
        """Whether nobody but this server can have offered the item to the device.

        A server that was no more when this one began can only have offered what was there then, and one that had the device
        before this one what was there when it came here.
        """
        server = self._servers.get((user, device), 0)
        if server == self._fence.server:
            upto = self._inherited.upto((user, device))
        elif self._cut_off.get((user, device)) == server:
            upto = self._began_at
        else:
            return False
        found = self.items(self.user(user), pos - 1, 1) if upto else []
        return not upto or (bool(found) and abs(found[0][1]) > upto)

    # What is appended.

    def take(self, lsn: int, record: AnyRecord) -> list[str] | None:
        """The record is part of the batch; returns what `apply` does. Raises `Anew`."""
        self._at = lsn
        self._recent[lsn] = record
        conv = None
        if isinstance(record, Act):
            conv = self.conv_for(record.conv)
            self.rows[lsn] = [conv.cid, 0, 0, None, record]
        if isinstance(record, DeviceChange) and record.exposed:
            self._attach(record.user, record.device)
        names = apply(self, lsn, record)
        if conv is not None:
            self._times[conv.name] = record.ts
            self.changed_convs.setdefault(conv.name, conv)
            if isinstance(conv, Group) and isinstance(record, Act):
                self._tell(conv, lsn, record, names or ())
        return names

    def _attach(self, user: str, name: str) -> None:
        """This server has the device's delivery from now on."""
        device, key = self.device(user, name), (user, name)
        former, mine = self.server_of(user, name), self._fence.server
        if device is None or not device.exposed:
            self._inherited.settle(key)
        elif former == self._cut_off.get(key):
            self._inherited.note(key, self._began_at)
        elif former:
            # This one too: it may have let go of the device, and what it knew, for a server at which the device never began.
            self.moved.add(key)
            if former != mine:
                self._inherited.note(key, self._at)
        self._servers[key] = mine

    def is_here(self, user: str, device: str) -> bool:
        """Whether no other server has had the device's delivery since this one."""
        self.devices(user)
        return self.server_of(user, device) in (0, self._fence.server)

    def replace_record(self, lsn: int, record: AnyRecord) -> bool:
        """A log row has another content; whether it is one of the batch."""
        self._records[lsn] = record
        if lsn not in self.rows:
            return False
        self._recent[lsn] = record
        self.rows[lsn][4] = record
        return True

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """See `interface.State`."""
        recent = self._recent
        found = super().records([lsn for lsn in lsns if lsn not in recent])
        return {lsn: recent[lsn] if lsn in recent else found[lsn] for lsn in lsns if lsn in recent or lsn in found}

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.apply.State`."""
        self.touch_user(user)
        self._inboxes[user.uid].append(pos, lsn)

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.apply.State`; it follows from the conversation and the member's part."""

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """See `core.apply.State`."""
        inbox = self._inboxes[user.uid]
        if pos >= inbox.first:
            inbox.tail[pos - inbox.first] = -abs(inbox.tail[pos - inbox.first])
        else:
            first, refs = self._chunk(user, pos)
            refs[pos - first] = -abs(refs[pos - first])
        self.voided.add(conv.cid)
        self.replaced.add(user.uid)
        self.touch_user(user)

    def remove_item(self, user: User, pos: int) -> None:
        """Retention has taken an item."""
        inbox = self._inboxes[user.uid]
        if pos >= inbox.first:
            inbox.tail[pos - inbox.first] = 0
        else:
            first, refs = self._chunk(user, pos)
            refs[pos - first] = 0
        self.replaced.add(user.uid)
        self.touch_user(user)

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

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """See `core.apply.State`."""
        self.rows[lsn][1:3] = seq, by.uid if by is not None else 0
        self._said[conv.cid, seq] = lsn

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """See `core.apply.State`."""
        found = self._said.get((conv.cid, seq))
        return found if found is not None else super().message_lsn(conv, seq)

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        """See `interface.State`."""
        found = [seq for cid, seq in self._said if cid == conv.cid and first <= seq <= last]
        stored = super().nearest_message(conv, first, last, upward)
        if stored is not None:
            found.append(stored)
        return (min if upward else max)(found, default=None)

    def hide_message(self, conv: Conv, seq: int) -> None:
        """See `core.apply.State`."""
        lsn = self._said.get((conv.cid, seq))
        if lsn is None:
            self.hidden.add((conv.cid, seq))
        else:
            self.rows[lsn][2] = 0

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """See `core.apply.State`."""
        self.mentions.append((conv.cid, user, seq))

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """See `core.apply.State`."""
        found = self.amended(conv, seq)
        if found is None:
            found = self._amended[conv.cid, seq] = Amended()
        self.changed_amended[conv.cid, seq] = found
        return found

    def changes(self, conv: Conv, seq: int, user: str) -> int:
        """See `View`."""
        key = conv.cid, seq, self.user(user).uid
        return self.counts[key] if key in self.counts else super().changes(conv, seq, user)

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """See `core.apply.State`."""
        self.counts[conv.cid, seq, user.uid] = self.changes(conv, seq, user.name) + 1

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """See `core.apply.State`."""
        key = tables.hash_of(user.uid, request_id)
        self.rows[lsn][3] = key
        self._requests[key] = self._recent[lsn]

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """See `core.apply.State`."""
        self.packets[self.user(user).uid, device, session, packet_id] = lsn

    def packet(self, user: str, device: str, session: str, packet_id: int) -> AnyRecord | None:
        """See `View`."""
        lsn = self.packets.get((self.user(user).uid, device, session, packet_id))
        return self._recent[lsn] if lsn is not None else super().packet(user, device, session, packet_id)

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """See `core.apply.State`."""
        found = self.conv_for(conv)
        name = self.user(sender).uid, found.cid, key
        if found.large:
            rows = [(self.keys[name],)] if name in self.keys else self.link.one(FORMER, *name)
            self._formers[lsn] = rows[0][0] if rows else 0
        self.keys[name] = lsn

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """See `View`."""
        found = self.conv(conv)
        lsn = self.keys.get((self.user(sender).uid, found.cid, key)) if found is not None else None
        return self._recent[lsn] if lsn is not None else super().keyed(sender, conv, key)
