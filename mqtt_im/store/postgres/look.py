"""The state as the tables have it: what has been looked up stays in memory until `forget`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from operator import attrgetter
from typing import Any

from mqtt_im.core.model import Amended, Conv, Device, Member, Upload, User
from mqtt_im.core.records import Act, AnyRecord, Gone, decode
from mqtt_im.protocol.names import members_of_direct
from mqtt_im.store.common.activity import ByActivity
from mqtt_im.store.common.delivered import delivered
from mqtt_im.store.common.rendering import FIRST_STEP

from . import tables
from .inbox import CHUNK, Inbox, unpack
from .large import IN_LARGE, LAGGING_HERE, LAGGING_MEMBERS, LARGE, NOT_TAKEN, WAITING, Group
from .wire import Link


class Look(ByActivity):
    """Most of `interface.State`. Raises what `Link` raises."""

    def __init__(self, link: Link, has_account: Callable[[str], bool], upload: Callable[[str], Upload | None]) -> None:
        self.link = link
        self.has_account = has_account
        self.upload = upload
        self._users: dict[str, User] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._convs: dict[str, Conv | None] = {}
        self._times: dict[str, int] = {}
        """Conversation → when it last had a record, in ms since 1970."""
        self._devices: dict[str, dict[str, Device]] = {}
        self._acked: dict[tuple[str, str], int] = {}
        """User and device → up to where that one has acknowledged, however its cursor came to be elsewhere."""
        self._servers: dict[tuple[str, str], int] = {}
        """User and device → the server that has had its delivery last."""
        self._left: dict[tuple[str, str], int] = {}
        """User and device → up to where that server may have offered it something, where it has left there; else 0."""
        self._records: dict[int, AnyRecord] = {}
        self._conv_numbers: dict[int, int] = {}
        """Log row → the number of its conversation."""
        self._amended: dict[tuple[int, int], Amended | None] = {}
        self._requests: dict[bytes, AnyRecord | None] = {}

    def forget(self) -> None:
        """Nothing is in memory."""
        for memory in (
            self._users,
            self._inboxes,
            self._convs,
            self._times,
            self._devices,
            self._acked,
            self._servers,
            self._left,
            self._records,
            self._conv_numbers,
            self._amended,
            self._requests,
        ):
            memory.clear()

    # Users.

    def user(self, name: str) -> User:
        """See `View`; one that has left no trace has the number 0."""
        user = self._users.get(name)
        if user is None:
            self.read_users((name,))
            user = self._users[name]
        return user

    def read_users(self, names: Iterable[str]) -> None:
        """These users are in memory."""
        missing = [name for name in names if name not in self._users]
        if missing:
            self._keep_users(self.link.one(tables.USERS, missing))
            for name in missing:
                self._users.setdefault(name, User(0, name))

    def _keep_users(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            user, inbox = tables.read_user(row)
            self._users[user.name] = user
            self._inboxes[user.uid] = inbox

    def user_names(self, after: str, limit: int) -> list[str]:
        """See `interface.State`."""
        return [name for (name,) in self.link.one(tables.NAMES_AFTER, after, limit)]

    # Conversations.

    def conv(self, name: str) -> Conv | None:
        """See `View`."""
        if name not in self._convs:
            self.read_convs((name,))
        return self._convs[name]

    def conv_for(self, name: str) -> Conv:
        """The conversation; one that is not there has the number 0."""
        return self.conv(name) or Conv(0, name, lambda _: {})

    def read_convs(self, names: Iterable[str]) -> None:
        """These conversations are in memory, as far as they exist."""
        missing = [name for name in dict.fromkeys(names) if name not in self._convs]
        groups = [name for name in missing if name[:1] == "#"]
        pairs = [pair for name in missing if (pair := members_of_direct(name)) is not None]
        if groups:
            for row in self.link.one(tables.GROUPS, groups):
                self._keep_group(row)
        if pairs:
            self.read_users({user for pair in pairs for user in pair})
            self._read_directs(pairs)
        for name in missing:
            self._convs.setdefault(name, None)

    def _read_directs(self, pairs: Iterable[tuple[str, str]]) -> None:
        keys = sorted({tuple(sorted((self._users[a].uid, self._users[b].uid))) for a, b in pairs})
        names = {self._users[name].uid: name for pair in pairs for name in pair}
        self._keep_directs(self.link.one(tables.DIRECTS, [a for a, _ in keys], [b for _, b in keys]), names)

    def _keep_directs(self, rows: Iterable[Sequence[Any]], names: Mapping[int, str]) -> None:
        for row in rows:
            self._keep_direct(row, names[row[0]], names[row[1]])

    def _keep_direct(self, row: Sequence[Any], a: str, b: str) -> Conv:
        conv, ts = tables.read_direct(row, a, b)
        self._convs[conv.name] = conv
        self._times[conv.name] = ts
        return conv

    def _keep_group(self, row: Sequence[Any]) -> Group:
        conv, ts = tables.read_group(row, self._members_of, self._part_of)
        self._convs[conv.name] = conv if conv.head else None
        self._times[conv.name] = ts
        return conv

    def _members_of(self, conv: Conv) -> MutableMapping[str, Member]:
        rows = self.link.one(tables.MEMBERS, [conv.cid])
        members = {row[2]: tables.read_member(row[3:]) for row in rows}
        self.read_users([name for name, part in members.items() if part.active and (part.delivered or part.read)])
        return members

    def _part_of(self, conv: Conv, name: str) -> Member | None:
        rows = self.link.one(tables.PART, conv.cid, self.user(name).uid)
        return tables.read_member(rows[0]) if rows else None

    def _active(self, user: User, above: int, below: int, limit: int) -> list[tuple[int, Conv]]:
        found: list[tuple[int, Conv]] = []
        for name, *direct in self.link.one(tables.ACTIVE_DIRECTS, user.uid, above, below, limit):
            a, b = (user.name, name) if direct[0] == user.uid else (name, user.name)
            conv = self._convs.get(f"{min(a, b)}:{max(a, b)}") or self._keep_direct(direct, a, b)
            found.append((conv.members[user.name].activity(conv), conv))
        for row in self.link.one(tables.ACTIVE_GROUPS, user.uid, above, below, limit):
            conv = self._convs.get(row[1]) or self._keep_group(row[: tables.GROUP_COLUMNS])
            found.append((tables.read_member(row[tables.GROUP_COLUMNS :]).activity(conv), conv))
        return found

    def conv_names(self, user: User) -> list[str]:
        """See `interface.State`."""
        pairs = [sorted((user.name, row[0])) for row in self.link.one(tables.DIRECTS_OF, user.uid)]
        return [f"{a}:{b}" for a, b in pairs] + [row[1] for row in self.link.one(tables.PARTS, user.uid)]

    def has_more_conversations(self, user: User, than: int) -> bool:
        """See `interface.State`."""
        ((count,),) = self.link.one(tables.COUNT_OF, user.uid, than + 1)
        return int(count) > than

    def share_group(self, user: str, other: str) -> bool:
        """See `interface.State`; it takes as long as the one who is in fewer groups is in."""
        self.read_users((user, other))
        fewer, more = sorted((self.user(user), self.user(other)), key=attrgetter("joined"))
        return bool(self.link.one(tables.COMMON, fewer.uid, more.uid))

    # Devices.

    def devices(self, user: str) -> dict[str, Device]:
        """See `interface.State`."""
        found = self._devices.get(user)
        if found is None:
            self._keep_devices({self.user(user).uid: user})
            found = self._devices[user]
        return found

    def in_log_order(self, user: User) -> bool:
        """See `interface.State`."""
        return not self.link.one(IN_LARGE, user.uid)

    def waiting(self, user: User) -> int:
        """See `interface.State`."""
        return int(self.link.one(WAITING, user.uid)[0][0])

    def not_taken(self, lsn: int) -> list[str]:
        """See `interface.State`."""
        return [name for (name,) in self.link.one(NOT_TAKEN, lsn)]

    def acknowledged(self, user: User) -> int:
        """See `interface.State`: what devices that were forgotten have acknowledged is in the user's row."""
        return max((user.acked, *(self._acked.get((user.name, name), 0) for name in self.devices(user.name))))

    def heads(self, names: list[str]) -> dict[str, int]:
        """The `pos` of the newest item of each of these users who has any, in one look-up."""
        return dict(self.link.one(tables.HEADS, names))

    def large_groups(self) -> dict[str, int]:
        """How much each large group has told its members by now."""
        return dict(self.link.one(LARGE))

    def lagging(self, group: str, names: list[str]) -> list[str]:
        """Those of these users who have not taken everything that a large group tells them, in one look-up."""
        return [name for (name,) in self.link.one(LAGGING_HERE, group, names)]

    def lagging_members(self, group: str) -> list[str]:
        """The members of a large group who have not taken everything that it tells them."""
        return [name for (name,) in self.link.one(LAGGING_MEMBERS, group)]

    def present(self, group: str, names: list[str]) -> list[str]:
        """Those of these users who are in the group now, in one look-up."""
        return [name for (name,) in self.link.one(tables.PRESENT, group, names)]

    def _keep_devices(self, names: Mapping[int, str], rows: Iterable[Sequence[Any]] | None = None) -> None:
        self._devices.update((name, {}) for name in names.values())
        for row in self.link.one(tables.DEVICES, sorted(names)) if rows is None else rows:
            name = names[row[0]]
            device, acked, server, left = tables.read_device(row, name)
            self._devices[name][device.device] = device
            self._acked[name, device.device] = acked
            self._servers[name, device.device] = server
            self._left[name, device.device] = left

    def device(self, user: str, device: str) -> Device | None:
        """See `View`."""
        return self.devices(user).get(device)

    def device_count(self, user: str) -> int:
        """See `View`."""
        return len(self.devices(user))

    # Items.

    def _inbox(self, user: User) -> Inbox:
        return self._inboxes.get(user.uid) or Inbox()

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """See `interface.State`."""
        return self.stored_items(user, max(after, user.lowest), limit)

    def stored_items(self, user: User, at: int, limit: int) -> list[tuple[int, int]]:
        """The items after `at`, also those of a former user of this name."""
        inbox = self._inbox(user)
        found: list[tuple[int, int]] = []
        while len(found) < limit:
            chunks: dict[int, list[int]] = {}
            end = user.head
            if at + 1 < inbox.first:
                rows = limit // CHUNK + 2
                stored = self.link.one(tables.CHUNKS, user.uid, at - CHUNK + 1, inbox.first, rows)
                chunks = {first: unpack(refs) for first, refs in stored}
                if len(stored) == rows:
                    end = stored[-1][0] + len(chunks[stored[-1][0]]) - 1
            found += [item for item in inbox.after(at, chunks) if item[0] <= end]
            if end >= user.head:
                break
            at = end
        return found[:limit]

    def read_inboxes(self, fetches: Sequence[tuple[str, int, int]]) -> None:
        """The newest items of these inboxes are in memory, as far as they come after the given one; and the users.

        What stands in chunks, and what is beyond the first few items, is looked up when somebody asks.
        """
        self.read_users(dict.fromkeys(name for name, _, _ in fetches))
        found: dict[int, None] = {}
        for name, after, limit in fetches:
            user = self._users[name]
            inbox = self._inbox(user)
            if after + 1 >= inbox.first:
                items = inbox.after(max(after, user.lowest), {})[: min(limit, FIRST_STEP)]
                found.update((lsn, None) for _, lsn in items if lsn > 0)
        if found:
            self.records(list(found))

    def delivered(self, user: str, after: int, upto: int) -> list[str | int]:
        """See `View`."""
        return delivered(self, user, after, upto)

    # The log, and what became of messages.

    def record(self, lsn: int) -> AnyRecord | None:
        """See `interface.State`."""
        return self.records([lsn]).get(lsn)

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """See `interface.State`."""
        memory = self._records
        missing = [lsn for lsn in lsns if lsn not in memory]
        for lsn, data, cid, seq, *amended in self.link.one(tables.RECORDS, missing) if missing else ():
            memory[lsn] = decode(data)
            self._conv_numbers[lsn] = cid
            if seq:
                self._amended.setdefault((cid, seq), tables.read_amended(amended) if amended[0] is not None else None)
        return {lsn: memory[lsn] for lsn in lsns if lsn in memory}

    def first_records(self, lsns: list[int], max_bytes: int) -> tuple[dict[int, AnyRecord], int]:
        """See `interface.State`; they are in memory already."""
        return self.records(lsns), 0

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """See `core.state.State`."""
        rows = self.link.one(tables.MESSAGE, conv.cid, seq)
        for lsn, data in rows:
            self._records.setdefault(lsn, decode(data))
            return int(lsn)
        return None

    def message(self, conv: Conv, seq: int) -> AnyRecord | None:
        """See `View`."""
        lsn = self.message_lsn(conv, seq)
        return None if lsn is None else self.record(lsn)

    def messages(self, conv: Conv, first: int, last: int) -> list[tuple[int, int]]:
        """See `interface.State`."""
        return [(seq, lsn) for seq, lsn in self.link.one(tables.MESSAGES, conv.cid, first, last)]

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        """See `interface.State`."""
        statement = tables.LOWEST if upward else tables.HIGHEST
        found: int | None = self.link.one(statement, conv.cid, first, last)[0][0]
        return found

    def unread(self, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """See `interface.State`."""
        asked = [conv.cid for conv, _, _ in parts], [first for _, first, _ in parts], [last for _, _, last in parts]
        unread = dict(self.link.one(tables.UNREAD, *asked, user.uid)) if parts else {}
        mentioned = dict(self.link.one(tables.MENTIONED, *asked, user.uid, user.name)) if unread else {}
        return {conv.name: (unread.get(conv.cid, 0), mentioned.get(conv.cid, 0)) for conv, _, _ in parts}

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""
        key = conv.cid, seq
        if key not in self._amended:
            self._read_amended([key])
        return self._amended[key]

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """See `interface.State`."""
        acts = {lsn: record for lsn, record in records.items() if isinstance(record, Act)}
        cids = self._conv_numbers
        self.read_convs({act.conv for lsn, act in acts.items() if lsn not in cids})
        keys = {lsn: (cids.get(lsn) or self.conv_for(act.conv).cid, act.seq) for lsn, act in acts.items()}
        missing = {key for key in keys.values() if key not in self._amended}
        if missing:
            self._read_amended(sorted(missing))
        return {lsn: found for lsn, key in keys.items() if (found := self._amended[key]) is not None}

    def _read_amended(self, keys: list[tuple[int, int]]) -> None:
        self._amended.update(dict.fromkeys(keys))
        for cid, seq, *row in self.link.one(tables.AMENDED, [cid for cid, _ in keys], [seq for _, seq in keys]):
            self._amended[cid, seq] = tables.read_amended(row)

    def amended_in_memory(self, conv: str, seq: int) -> Amended | None:
        """What is known to have become of a message, without looking it up."""
        found = self._convs.get(conv)
        return None if found is None else self._amended.get((found.cid, seq))

    def changes(self, conv: Conv, seq: int, user: str) -> int:
        """See `View`."""
        rows = self.link.one(tables.CHANGES, conv.cid, seq, self.user(user).uid)
        return int(rows[0][0]) if rows else 0

    # Requests.

    def request(self, user: str, request_id: str) -> AnyRecord | None:
        """See `View`."""
        key = tables.hash_of(self.user(user).uid, request_id)
        if key not in self._requests:
            rows = self.link.one(tables.IDS, [key])
            self._requests[key] = remembered(rows[0][1]) if rows else None
        return self._requests[key]

    def packet(self, user: str, device: str, session: str, packet_id: int) -> AnyRecord | None:
        """See `View`."""
        rows = self.link.one(tables.PACKET, self.user(user).uid, device, session, packet_id)
        return remembered(rows[0][0]) if rows else None

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """See `View`."""
        found = self.conv(conv)
        rows = [] if found is None else self.link.one(tables.KEYED, self.user(sender).uid, found.cid, key)
        return decode(rows[0][0]) if rows else None

    def claim(self, user: str, pos: int) -> bool:
        """See `View`."""
        return False


def remembered(data: bytes) -> AnyRecord:
    """A record for who asks by its `id`, whether its content is gone or not."""
    record: AnyRecord = decode(data)
    return record.act if isinstance(record, Gone) else record
