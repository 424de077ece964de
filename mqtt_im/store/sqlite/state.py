"""The ledger's state: what the log says, from memory where it is new, from the projections where it is old.

Two generations stand between the log and the projections: `live` takes what is committed now, `frozen` is being written in
bulk. Every look-up asks them in this order, then the projection. Entities are cached; those that a generation holds stay, the
others may be dropped at any time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest

from msgspec import structs

from mqtt_im.core.apply import apply
from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, Upload, User
from mqtt_im.core.records import (
    Act,
    AnyRecord,
    Cursors,
    DeviceChange,
    Edited,
    Gone,
    GroupChange,
    Message,
    Reacted,
    ReadMark,
    Recalled,
    Reported,
    decode,
)
from mqtt_im.protocol.names import direct

from .bounds import Bounds
from .generation import Bulk, Generation
from .hot import Log, Projection
from .numbering import Numbering

MAX_CACHED = 50_000
"""Entities of each kind that stay in memory when nobody needs them."""

MAX_MEMBERS = 400_000
"""Members of groups that stay in memory when nobody needs them."""

MAX_DELIVERED = 5000

MANY = 100
"""A record with more recipients than that is shortened in memory once it is on disk."""

MAX_RECORDS = 4096
"""Records read from disk that stay in memory."""


class ProjectedState:
    """`core.model.View` and `core.apply.State` over a log and its projections."""

    def __init__(
        self,
        log: Log,
        projection: Projection,
        has_account: Callable[[str], bool],
        claim: Callable[[str, int], bool],
        upload: Callable[[str], Upload | None] = lambda _: None,
        bounds: Bounds | None = None,
        numbering: Numbering | None = None,
    ) -> None:
        self.log = log
        self.projection = projection
        self.has_account = has_account
        self.claim = claim
        self.upload = upload
        self.live = Generation()
        self.frozen: Generation | None = None
        self._users: dict[str, User] = {}
        self._convs: dict[str, Conv] = {}
        self._absent: set[str] = set()
        """Conversations that were looked for in this batch and do not exist."""
        self._bounds = bounds or Bounds()
        self._groups: dict[str, int] = {}
        """Groups with their members in memory, and how many those are; the ones that were used last at the end."""
        self._large: list[int] = []
        """Log rows of the batch that are to be shortened once they are on disk."""
        self._unused: set[tuple[int, str]] = set()
        """Ids that were looked for in this batch and were not used before it."""
        self._devices: dict[str, dict[str, Device]] = {}
        self._amended: dict[tuple[int, int], Amended | None] = {}
        self._read: dict[int, AnyRecord] = {}
        self._numbering = numbering or Numbering(projection)
        self._stored_uids = self._numbering.next_uid
        """Users from this uid on have nothing in the projections yet."""

    # Generations.

    def take(self, lsn: int, record: AnyRecord, size: int) -> None:
        """The next row of the log is part of the state; it has `size` bytes."""
        live = self.live
        live.records[lsn] = record
        live.count += 1
        live.size += size
        live.last = lsn
        if isinstance(record, Act) and len(record.pos) > MANY:
            live.given += len(record.pos)
            live.size -= 4 * len(record.pos)  # they leave the memory
            self._large.append(lsn)
        apply(self, lsn, record)

    def replay(self, lsn: int, record: AnyRecord, size: int) -> None:
        """As `take`, for a row that is on disk already."""
        self.take(lsn, record, size)
        self.settle()

    def settle(self) -> None:
        """Everything taken is on disk: of records with many recipients only what is shown stays in memory."""
        for lsn in self._large:
            self.live.records[lsn] = shown_of(self.live.records[lsn])
            self.live.shortened.add(lsn)
        self._large.clear()

    def freeze(self) -> list[Bulk]:
        """`live` becomes `frozen`, and its rows are returned; a new `live` begins. There was no frozen one."""
        assert self.frozen is None
        self._stored_uids = self._numbering.next_uid
        self._large.clear()
        bulks = self.live.bulks(self.user)
        self.frozen = self.live
        self.live = Generation()
        self.live.last = self.frozen.last
        return bulks

    def thaw(self) -> None:
        """`frozen` is in the projections; what only it held in memory may go."""
        self.frozen = None
        self._unused.clear()  # some may be used now, and only the projections know
        self._trim()

    def _trim(self) -> None:
        """Entities that no generation holds may go, where there are many; between batches."""
        generations = self._generations()
        if len(self._users) > self._bounds.of(MAX_CACHED):
            self._users = {name: user for held in reversed(generations) for name, user in held.users.items()}
        if len(self._convs) > self._bounds.of(MAX_CACHED):
            self._convs = {name: conv for held in reversed(generations) for name, conv in held.convs.items()}
            for held in generations:
                for parts in held.members.values():
                    for conv in parts.values():
                        self._convs[conv.name] = conv
        if len(self._devices) > self._bounds.of(MAX_CACHED):
            kept = {name for held in generations for name in held.devices}
            self._devices = {name: found for name, found in self._devices.items() if name in kept}
        self._trim_amended()

    def _generations(self) -> tuple[Generation, ...]:
        return (self.live,) if self.frozen is None else (self.live, self.frozen)

    def prefetch(self, asked: list[tuple[str, str | None, str | None]]) -> None:
        """What the requests of a batch will ask for is in memory: `(user, id, user or group written to)` of each.

        One look-up for all of them, instead of some for each: a look-up on disk costs as much as the rest of a request.
        """
        self._absent.clear()
        self._unused.clear()
        self._trim()  # who is refused leaves nothing to write, after which it would be done
        self._unload()
        users = self._users
        missing: set[str] = set()
        names: set[str] = set()
        for user, _, to in asked:
            if user not in users:
                missing.add(user)
            if to is not None:
                if to[0] == "#":
                    names.add(to)
                else:
                    names.add(direct(user, to))
                    if to not in users:
                        missing.add(to)
        self._prefetch_users(missing)
        self._prefetch_convs(names)
        for name in names:
            if name[0] == "#" and (conv := self._convs.get(name)) is not None and conv.loaded:
                self._prefetch_users(set(conv.members))
        generations = [generation.requests for generation in self._generations()]
        keys = {(users[user].uid, request_id) for user, request_id, _ in asked if request_id is not None}
        keys = {key for key in keys if key[0] < self._stored_uids and not any(key in requests for requests in generations)}
        if keys:
            self._unused = keys - self.projection.requests(list(keys)).keys()

    def prefetch_records(self, records: Iterable[AnyRecord]) -> None:
        """Whom and what these records of the log are about is in memory."""
        users = set[str]()
        owners = set[str]()
        convs = set[str]()
        marked = set[str]()
        for record in records:
            if isinstance(record, Act):
                users.add(record.by)
                convs.add(record.conv)
                if record.conv[0] != "#":
                    users.update(record.conv.split(":"))
            elif isinstance(record, Cursors):
                for user, _, _, delivered in record.moves:
                    owners.add(user)
                    marked.update(delivered[::2])
            elif isinstance(record, DeviceChange):
                owners.add(record.user)
                marked.update((record.delivered or ())[::2])
            elif isinstance(record, ReadMark):
                users.add(record.user)
                marked.add(record.conv)
        self._absent.clear()
        self._prefetch_users(users | owners)
        self._prefetch_convs(convs | marked)
        known = [conv for name in marked if (conv := self._convs.get(name)) is not None]
        self._prefetch_members([conv for conv in known if conv.users is not None and not conv.loaded])
        self._prefetch_devices(owners)

    def _prefetch_devices(self, names: set[str]) -> None:
        missing = {self.user(name).uid: name for name in names if name not in self._devices}
        if missing:
            for name in missing.values():
                self._devices[name] = {}
            for uid, device in self.projection.devices_of(missing):
                self._devices[missing[uid]][device.device] = device

    def _prefetch_users(self, names: set[str]) -> None:
        users = self._users
        missing = {name for name in names if name not in users}
        if missing:
            for found in self.projection.users(list(missing)):
                users[found.name] = found
                missing.discard(found.name)
            self._numbering.expect_users(missing)
            for name in missing:
                users[name] = User(self._numbering.user(name), name)

    def _prefetch_convs(self, names: set[str]) -> None:
        missing = {name for name in names if name not in self._convs}
        if missing:
            for conv in self.projection.convs(list(missing), self._members_of, self._part_of):
                self._convs[conv.name] = conv
                missing.discard(conv.name)
            self._absent |= missing
            self._numbering.expect_convs(missing)

    # Users.

    def user(self, name: str) -> User:
        """See `View`."""
        user = self._users.get(name)
        if user is None:
            user = self.projection.user(name)
            if user is None:
                user = User(self._numbering.user(name), name)
            self._users[name] = user
        return user

    def user_names(self, after: str, limit: int) -> list[str]:
        """See `interface.State`."""
        found = set(self.projection.names_after(after, limit))
        for generation in self._generations():
            found.update(name for name in list(generation.users) if name > after)
        return sorted(found)[:limit]

    def touch_user(self, user: User) -> None:
        """See `State`."""
        user.changed = self.live.last
        self.live.users[user.name] = user

    # Conversations.

    def conv(self, name: str) -> Conv | None:
        """See `View`."""
        conv = self._convs.get(name)
        if conv is None and name not in self._absent:
            found = self.projection.convs([name], self._members_of, self._part_of)
            if found:
                conv = self._convs[name] = found[0]
            else:
                self._absent.add(name)
        return conv

    def _members_of(self, conv: Conv) -> dict[str, Member]:
        if conv.users is None:
            members = dict(self.projection.members_of_group(conv.cid))
            self._loaded(conv.name, members)
            return members
        return {
            name: self.projection.member(self.user(name).uid, conv.cid) or _everything(order)
            for order, name in enumerate(conv.users)
        }

    def _part_of(self, conv: Conv, name: str) -> Member | None:
        return self.projection.member(self.user(name).uid, conv.cid)

    def _loaded(self, name: str, members: Mapping[str, Member]) -> None:
        """The members of a group are in memory, as long as there is room; who they are will be asked next."""
        self._groups[name] = len(members)
        self._prefetch_users(set(members))

    def _unload(self) -> None:
        """No more members of groups are in memory than there is room for, but for those that must be."""
        room = self._bounds.of(MAX_MEMBERS) - sum(self._groups.values())
        for name in list(self._groups) if room < 0 else ():
            if any(name in generation.regrouped for generation in self._generations()):
                continue
            conv = self._convs.get(name)
            if conv is not None:
                conv.unload()
            room += self._groups.pop(name)
            if room >= 0:
                return

    def conv_for(self, name: str) -> Conv:
        """See `State`."""
        conv = self.conv(name)
        if conv is None:
            cid = self._numbering.conv(name)
            conv = Conv(cid, name, self._members_of, self._part_of if name[0] == "#" else None)
            if conv.group:
                conv.members = {}
            self._convs[name] = conv
            self._absent.discard(name)
            if conv.users is not None:
                self.live.fresh.append(conv)
                self.live.convs[name] = conv
                for member in conv.users:
                    self.touch_user(self.user(member))
        return conv

    def touch_conv(self, conv: Conv) -> None:
        """See `State`."""
        conv.changed = self.live.last
        self.live.convs[conv.name] = conv
        if conv.group and conv.loaded:
            self._groups.pop(conv.name, None)
            self._groups[conv.name] = len(conv.members)  # used last

    def touch_member(self, conv: Conv, name: str) -> None:
        """See `State`."""
        conv.changed = self.live.last
        if conv.group:
            if conv.name not in self.live.regrouped:
                self.live.regrouped.add(conv.name)
                self.live.pinned += len(conv.members)
            self.live.pinned += 1
        parts = self.live.members.get(name)
        if parts is None:
            self.live.members[name] = {conv.cid: conv}
            self.live.parts += 1
        else:
            self.live.parts += conv.cid not in parts
            parts[conv.cid] = conv
        self.live.convs[conv.name] = conv

    # Devices.

    def devices(self, user: str) -> dict[str, Device]:
        """The registered devices of a user, by name."""
        found = self._devices.get(user)
        if found is None:
            found = {device.device: device for device in self.projection.devices(self.user(user).uid, user)}
            self._devices[user] = found
        return found

    def device(self, user: str, device: str) -> Device | None:
        """See `View`."""
        return self.devices(user).get(device)

    def exposed_devices(self) -> set[tuple[str, str]]:
        """User and device of all that are `exposed`; while nothing is frozen."""
        found = self.projection.exposed_devices()
        for user, devices in self.live.devices.items():
            for name, device in devices.items():
                found.discard((user, name))
                if device is not None and device.exposed:
                    found.add((user, name))
        return found

    def device_count(self, user: str) -> int:
        """See `View`."""
        return len(self.devices(user))

    def device_for(self, user: str, device: str, now: int) -> Device:
        """See `State`."""
        devices = self.devices(user)
        found = devices.get(device)
        if found is None:
            found = devices[device] = Device(user, device, now)
        return found

    def touch_device(self, device: Device) -> None:
        """See `State`."""
        self._touched_devices(device.user)[device.device] = device

    def drop_device(self, user: str, device: str) -> None:
        """See `State`."""
        self.devices(user).pop(device, None)
        self._touched_devices(user)[device] = None

    def _touched_devices(self, name: str) -> dict[str, Device | None]:
        user = self.user(name)
        user.changed = self.live.last
        self.live.users.setdefault(name, user)
        return self.live.devices.setdefault(name, {})

    # Messages and items.

    def record(self, lsn: int) -> AnyRecord | None:
        """The record of a log row; None where it is gone."""
        for generation in self._generations():
            record = generation.records.get(lsn)
            if record is not None:
                return record
        record = self._read.get(lsn)
        if record is None:
            data = self.log.get(lsn)
            if data is None:
                return None
            record = decode(data)
            if len(self._read) >= self._bounds.of(MAX_RECORDS):
                self._read.clear()
            if len(data) < 4096:
                self._read[lsn] = record
        return record

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """The records of those log rows that are not gone."""
        found: dict[int, AnyRecord] = {}
        missing: list[int] = []
        for lsn in lsns:
            for memory in (self.live.records, self.frozen.records if self.frozen else {}, self._read):
                record = memory.get(lsn)
                if record is not None:
                    found[lsn] = record
                    break
            else:
                missing.append(lsn)
        if missing:
            found.update((lsn, decode(data)) for lsn, data in self.log.get_many(missing))
        return found

    def replace_record(self, lsn: int, record: AnyRecord) -> None:
        """A log row was rewritten."""
        for generation in self._generations():
            if lsn in generation.records:
                generation.records[lsn] = shown_of(record) if lsn in generation.shortened else record
        self._read[lsn] = record  # the row itself is as it was until the commit

    def forget(self, lsns: Iterable[int], messages: Iterable[tuple[int, int]]) -> None:
        """Log rows were taken away, and the messages with these `(cid, seq)` are gone."""
        for lsn in lsns:
            self._read.pop(lsn, None)
        for key in messages:
            self._amended.pop(key, None)
            self.live.amended.pop(key, None)
            self.live.changes.pop(key, None)

    def put_item(self, user: User, pos: int, lsn: int) -> None:
        """See `State`."""
        items = self.live.items.get(user.uid)
        if items is None:
            self.live.items[user.uid] = [pos, lsn]
        else:
            items.append(lsn)

    def scatter_item(self, user: User, pos: int, lsn: int) -> None:
        """The inbox has an item, and lacks some before it; for writing alone, and not for being read from memory."""
        self.live.scattered.append((user.uid, pos, lsn))

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `State`."""
        found = self.live.latest.get(user.uid)
        if found is None:
            self.live.latest[user.uid] = {conv.name: lsn}
        else:
            self.live.told += conv.name not in found
            found[conv.name] = lsn

    def void_item(self, user: User, pos: int) -> None:
        """See `State`."""
        self.live.voids.add((user.uid, pos))

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """`(pos, lsn)` of the items after `after`, at most `limit`; `lsn` is negative where an item was replaced."""
        uid, after = user.uid, max(after, user.begin)
        oldest = next((first[0] for one in reversed(self._generations()) if (first := one.items.get(uid)) is not None), 0)
        found = [] if oldest and oldest <= after + 1 else self.projection.items(uid, after, limit)
        for generation in reversed(self._generations()):
            if len(found) < limit:
                found += generation.items_of(uid, found[-1][0] if found else after, limit - len(found))
        if any(generation.voids for generation in self._generations()):
            found = [(pos, -abs(lsn) if self._voided(uid, pos) else lsn) for pos, lsn in found]
        return found

    def delivered(self, user: str, after: int, upto: int) -> list[str | int]:
        """See `View`. Of a long way the last `MAX_DELIVERED` items tell."""
        after = max(after, upto - MAX_DELIVERED)
        marks: dict[str, int] = {}
        items = [item for item in self.items(self.user(user), after, upto - after) if item[0] <= upto]
        records = self.records([abs(lsn) for _, lsn in items])
        for _, lsn in items:
            record = records.get(abs(lsn))
            if isinstance(record, Message | GroupChange) and record.by != user:
                marks[record.conv] = max(record.seq, marks.get(record.conv, 0))
        return [part for mark in marks.items() for part in mark]

    def _voided(self, uid: int, pos: int) -> bool:
        return any((uid, pos) in generation.voids for generation in self._generations())

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """See `State`."""
        row = (seq, lsn, by.uid if by is not None else 0)
        messages = self.live.messages.get(conv.cid)
        if messages is None:
            self.live.messages[conv.cid] = [row]
        else:
            messages.append(row)

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """The log row of a message."""
        for generation in self._generations():
            rows = generation.messages.get(conv.cid)
            if rows and rows[0][0] <= seq <= rows[-1][0]:
                row = rows[bisect_left(rows, (seq, 0, 0))]
                return row[1] if row[0] == seq else None
        return self.projection.message(conv.cid, seq)

    def hide_message(self, conv: Conv, seq: int) -> None:
        """See `State`."""
        if not self.live.hide(conv.cid, seq):
            self.live.hidden.setdefault(conv.cid, set()).add(seq)

    def message(self, conv: Conv, seq: int) -> AnyRecord | None:
        """See `View`."""
        lsn = self.message_lsn(conv, seq)
        return None if lsn is None else self.record(lsn)

    def messages(self, conv: Conv, first: int, last: int) -> list[tuple[int, int]]:
        """`(seq, lsn)` of the messages from `first` to `last`, both included, as far as they are kept."""
        found = dict(self.projection.messages(conv.cid, first, last))
        for generation in self._generations():
            found.update((seq, lsn) for seq, lsn, _ in generation.messages_of(conv.cid, first, last))
        return sorted(found.items())

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        """See `interface.State`."""
        found = [seq for generation in self._generations() for seq, _, _ in generation.messages_of(conv.cid, first, last)]
        stored = self.projection.nearest_message(conv.cid, first, last, upward)
        if stored is not None:
            found.append(stored)
        return (min if upward else max)(found, default=None)

    def unread(self, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """See `interface.State`."""
        names: dict[int, str] = {}
        counts: dict[int, list[int]] = {}
        stored: list[tuple[int, int, int]] = []
        hidden: list[tuple[int, int, int]] = []
        for conv, first, last in parts:
            names[conv.cid] = conv.name
            count = counts.setdefault(conv.cid, [0, 0])
            end = last
            gone = {seq for generation in self._generations() for seq in generation.hidden.get(conv.cid, ())}
            for generation in self._generations():
                unread, mentions = generation.unread(conv.cid, first, last, user.uid, gone)
                count[0] += unread
                count[1] += mentions
                end = min(end, generation.first_message(conv.cid, end + 1) - 1)
            if first <= end:
                stored.append((conv.cid, first, end))
                hidden += [(conv.cid, seq, seq) for seq in gone if first <= seq <= end]
        for number, look_up in enumerate((self.projection.unread, self.projection.mentions)):
            for cid, some in look_up(stored, user.uid).items():
                counts[cid][number] += some
            for cid, some in look_up(hidden, user.uid).items():  # recalled, and still counted where that was not written yet
                counts[cid][number] -= some
        return {names[cid]: (unread, mentions) for cid, (unread, mentions) in counts.items()}

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """See `State`."""
        mentioned = 0
        if user != "*":
            mentioned = self.user(user).uid
            self.touch_user(self.user(user))
        self.live.mentions.setdefault(conv.cid, []).append((mentioned, seq))

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""
        key = (conv.cid, seq)
        try:
            return self._amended[key]
        except KeyError:
            self._trim_amended()
            found = self._amended[key] = self.projection.amended(conv.cid, seq)
            return found

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """What became of the messages that these records, by log row, are or are about, where anything did."""
        self._trim_amended()
        known, found = self._amended, dict[int, Amended]()
        acts = {lsn: record for lsn, record in records.items() if isinstance(record, Act)}
        self._prefetch_convs({act.conv for act in acts.values()})
        asked: dict[tuple[int, int], list[int]] = {}
        for lsn, act in acts.items():
            key = (self.conv_for(act.conv).cid, act.seq)
            if key not in known:
                asked.setdefault(key, []).append(lsn)
            elif (amended := known[key]) is not None:
                found[lsn] = amended
        if asked:
            for key, amended in self.projection.amended_of(list(asked)).items():
                known[key] = amended
                found.update(dict.fromkeys(asked[key], amended))
        return found

    def _trim_amended(self) -> None:
        if len(self._amended) > self._bounds.of(MAX_CACHED):
            self._amended.clear()
            for generation in reversed(self._generations()):
                self._amended.update(generation.amended)

    def amended_in_memory(self, conv: Conv, seq: int) -> Amended | None:
        """What became of a message since it was last read from disk."""
        return self._amended.get((conv.cid, seq))

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """See `State`."""
        found = self.amended(conv, seq)
        if found is None:
            found = self._amended[conv.cid, seq] = Amended()
        self.live.amended[conv.cid, seq] = found
        self.live.amends[conv.name] = self.live.last
        return found

    def changes(self, conv: Conv, seq: int, user: str) -> int:
        """See `View`."""
        uid = self.user(user).uid
        for generation in self._generations():
            count = generation.changes.get((conv.cid, seq), {}).get(uid)
            if count is not None:
                return count
        return self.projection.changes(conv.cid, seq, uid)

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """See `State`."""
        self.live.changes.setdefault((conv.cid, seq), {})[user.uid] = self.changes(conv, seq, user.name) + 1

    # Requests.

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """See `State`."""
        self.live.requests[user.uid, request_id] = lsn

    def whole(self, lsn: int) -> AnyRecord | None:
        """The record of a log row with all its numbers."""
        if any(lsn in generation.shortened for generation in self._generations()):
            data = self.log.get(lsn)
            return None if data is None else decode(data)
        return self.record(lsn)

    def request(self, user: str, request_id: str) -> AnyRecord | None:
        """See `View`."""
        key = (self.user(user).uid, request_id)
        lsn = self.live.requests.get(key)
        if lsn is None and self.frozen is not None:
            lsn = self.frozen.requests.get(key)
        if lsn is None and key not in self._unused and key[0] < self._stored_uids:
            lsn = self.projection.request(*key)
        return None if lsn is None else self._remembered(lsn)

    def _remembered(self, lsn: int) -> AnyRecord | None:
        record = self.whole(lsn)
        return record.act if isinstance(record, Gone) else record

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """See `State`."""
        self.live.packets[user, device, session, packet_id] = lsn

    def packet(self, user: str, device: str, session: str, packet_id: int) -> AnyRecord | None:
        """See `View`."""
        key = (user, device, session, packet_id)
        for generation in self._generations():
            if key in generation.packets:
                return self._remembered(generation.packets[key])
        lsn = self.projection.packet(key)
        return None if lsn is None else self._remembered(lsn)

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """See `State`."""
        self.live.keyed[sender, conv, key] = lsn

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """See `View`."""
        wanted = (sender, conv, key)
        for generation in self._generations():
            if wanted in generation.keyed:
                return self.whole(generation.keyed[wanted])
        lsn = self.projection.keyed(wanted)
        return None if lsn is None else self.whole(lsn)

    # Who is in what.

    def latest(self, user: User, below: int, limit: int) -> list[tuple[int, Conv]]:
        """See `interface.State`."""
        recent = self._recent(user)
        found = [(lsn, name) for name, lsn in recent.items() if 0 < lsn < below and self._shown(user, name)]
        found.sort(reverse=True)
        del found[limit:]
        known = 0
        for lsn, name in self.projection.latest(user.uid, below):
            if name in recent or not self._shown(user, name):
                continue
            known += 1
            if known > limit:
                break
            found.append((lsn, name))
        found.sort(reverse=True)
        return self._named(found[:limit])

    def later(self, user: User, above: int, name: str, limit: int) -> list[tuple[int, Conv]]:
        """See `interface.State`."""
        recent = self._recent(user)
        names = {*self.projection.later(user.uid, above), *(name for name, lsn in recent.items() if lsn > above)}
        found = self._named([(0, name) for name in nsmallest(limit, (other for other in names if other > name))])
        parts = [(conv, conv.part(user.name)) for _, conv in found]
        return [(part.activity(conv), conv) for conv, part in parts if part is not None]

    def _shown(self, user: User, name: str) -> bool:
        """Whether the user may read something of it. What a former user of the name had is found until all is flushed."""
        if not user.begin:
            return True
        conv = self.conv_for(name)
        return conv.members[user.name].activity(conv) > 0

    def _recent(self, user: User) -> dict[str, int]:
        """The conversations of which the user got a message that is not in the projections, and its log row."""
        found = self.live.latest.get(user.uid, {})
        return found if self.frozen is None else {**self.frozen.latest.get(user.uid, {}), **found}

    def _named(self, found: list[tuple[int, str]]) -> list[tuple[int, Conv]]:
        """The conversations of these names, with the members of direct ones in memory."""
        self._prefetch_convs({name for _, name in found})
        convs = [(lsn, self.conv_for(name)) for lsn, name in found]
        self._prefetch_members([conv for _, conv in convs if conv.users is not None and not conv.loaded])
        return convs

    def _prefetch_members(self, convs: list[Conv]) -> None:
        """The members of these direct conversations, which are nowhere in memory, are in memory."""
        self._prefetch_users({name for conv in convs for name in conv.users or ()})
        found = self.projection.members([(self.user(name).uid, conv.cid) for conv in convs for name in conv.users or ()])
        for conv in convs:
            conv.members = {
                name: found.get((self.user(name).uid, conv.cid)) or _everything(order)
                for order, name in enumerate(conv.users or ())
            }

    def conv_names(self, user: User) -> list[str]:
        """See `interface.State`."""
        names = dict.fromkeys(self.projection.conv_names(user.uid))
        for generation in self._generations():
            names.update((conv.name, None) for conv in generation.members.get(user.name, {}).values())
            names.update(dict.fromkeys(generation.latest.get(user.uid, ())))
        return list(names)

    def share_group(self, user: str, other: str) -> bool:
        """See `interface.State`."""
        changed: set[int] = set()
        for generation in self._generations():
            for name in (user, other):
                for cid, part in generation.members.get(name, {}).items():
                    if part.group and cid not in changed:
                        changed.add(cid)
                        conv = self.conv_for(part.name)
                        if conv.member(user) is not None and conv.member(other) is not None:
                            return True
        return any(cid not in changed for cid in self.projection.common_groups(self.user(user).uid, self.user(other).uid))


def shown_of(record: AnyRecord) -> AnyRecord:
    """The record without the numbers that it has given out, and without their recipients: what is shown of it is the same."""
    if isinstance(record, GroupChange):
        return structs.replace(record, pos=[], users=[], asked=None)
    if isinstance(record, Message) and record.extra is not None and "users" in record.extra:
        extra = {name: value for name, value in record.extra.items() if name != "users"}
        return structs.replace(record, pos=[], extra=extra)
    return structs.replace(record, pos=[]) if isinstance(record, Message | Edited | Recalled | Reacted | Reported) else record


def _everything(order: int) -> Member:
    member = Member(order)
    member.spans = EVERYTHING
    return member
