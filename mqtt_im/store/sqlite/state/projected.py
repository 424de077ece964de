"""The ledger's state: a generation takes what is committed, and the next one begins where it is to be written.

Also which ids were used, and which conversations a user is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Final

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.apply import apply
from mqtt_im.core.model import Conv, Member, Upload, User, marked_of
from mqtt_im.core.records import AnyRecord, Gone, UserChange
from mqtt_im.protocol.names import direct
from mqtt_im.shares import Bounds
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.sqlite.tables.projection import Projection
from mqtt_im.store.sqlite.tables.rows import read_user
from mqtt_im.store.wanted import Asked

from .bulks import Bulk, bulks_of
from .contents import Contents
from .entities import NAME_BYTES, settings_of
from .generation import Generation
from .numbering import Numbering
from .overlay import shown_of

PART: Final = 1_000
"""Users, or members of a group, that come to memory at once: some milliseconds."""
MANY: Final = 100
"""A record with more recipients than that is shortened in memory once it is on disk."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ProjectedState(Contents):
    """`core.view.View` and `core.state.State` over a log and its projections."""

    def __init__(
        self,
        log: Log,
        projection: Projection,
        has_account: Callable[[str], bool],
        claim_all: Callable[[Sequence[tuple[str, int]]], Sequence[tuple[str, int]]],
        upload: Callable[[str], Upload | None] = lambda _: None,
        bounds: Bounds | None = None,
        numbering: Numbering | None = None,
    ) -> None:
        super().__init__(log, projection, bounds or Bounds(), numbering)
        self.has_account = has_account
        self.claim_all = claim_all
        self.upload = upload
        self.keeps = False
        """Whether what nobody needs stays in memory with the next batch too: some of it has come for one that waits for more."""
        self._large: list[int] = []
        """Log rows of the batch that are to be shortened once they are on disk."""
        self._unused: set[tuple[int, str]] = set()
        """Ids that were looked for in this batch and were not used before it."""

    def take(self, lsn: int, record: AnyRecord, size: int) -> list[str] | None:
        """The next row of the log is part of the state; it has `size` bytes. Returns what `apply` does."""
        live = self.live
        live.records[lsn] = record
        live.count += 1
        live.size += size
        live.last = lsn
        names = apply(self, lsn, record)
        if names is not None:
            if len(names) > MANY:
                live.given += len(names)
                live.size -= 4 * len(names)  # they leave the memory
                self._large.append(lsn)
        elif type(record) is UserChange:
            self._beside += NAME_BYTES  # where a name is blocked, or muted
        return names

    def replay(self, lsn: int, record: AnyRecord, size: int) -> None:
        """As `take`, for a row that is on disk already; what nobody needs is given back, as between two batches."""
        self.take(lsn, record, size)
        self.settle()
        if self._grouped:
            self._unload()

    def settle(self) -> None:
        """Everything taken is on disk: of records with many recipients only what is shown stays in memory."""
        for lsn in self._large:
            self.live.records[lsn] = shown_of(self.live.records[lsn])
            self.live.shortened.add(lsn)
        self._large.clear()

    def freeze(self) -> list[Bulk]:
        """`live` becomes `frozen`, and its rows are returned (`bulks_of`); a new `live` begins. None was frozen."""
        assert self.frozen is None
        self._stored_uids = self._numbering.next_uid
        self._large.clear()
        bulks = bulks_of(self.live, self._uid_of, self._written)
        self._freeze_users()
        self.frozen = self.live
        self.live = Generation()
        self.live.last = self.frozen.last
        return bulks

    def thaw(self) -> None:
        """`frozen` is in the projections; what only it held in memory may go."""
        self.frozen = None
        self._unwritten.clear()
        self._unused.clear()  # some may be used now, and only the projections know
        self._trim()

    def prefetch(self, asked: list[Asked]) -> None:
        """What the requests of a batch will ask for is in memory.

        One look-up for all of them, instead of some for each: a look-up on disk costs as much as the rest of a request.
        """
        self._absent.clear()
        self._unused.clear()
        if not self.keeps:
            self._trim()  # who is refused leaves nothing to write, after which it would be done
        self._unload()
        users, room = self._users, PART
        missing: set[str] = set()
        names: set[str] = set()
        for user, _, to, others in asked:
            if user not in users:
                missing.add(user)
            if len(others) <= room:
                missing.update(others)  # else they come a part at a time (`arriving`)
                room -= len(others)
            if to is not None:
                if to[0] == "#":
                    names.add(to)
                else:
                    names.add(direct(user, to))
                    if to not in users:
                        missing.add(to)
        self._prefetch_users(missing)
        self._prefetch_convs(names)
        found = [(users[user].uid, request_id) for user, request_id, _, _ in asked if request_id is not None]
        keys = {key for key in found if key[0] < self._stored_uids}
        for generation in self._generations():
            keys = keys.difference(generation.requests)
        if keys:
            self._unused = keys - self.projection.requests(list(keys)).keys()

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Those of these users who are not in memory."""
        users = self._users
        return [name for name in names if name not in users]

    def bring_users(self, names: Sequence[str]) -> None:
        """These users are in memory."""
        self._prefetch_users(set(names))

    def some_members(self, conv: Conv, after: int, limit: int) -> list[tuple[int, str, Member]]:
        """A group's members, present and past, and their uids, in the order of these: those behind `after`, at most `limit`.

        Who they are is in memory.
        """
        users, found = self._users, []
        for (uid, name, *who), member in self.projection.some_members(conv.cid, after, limit):
            found.append((uid, name, member))
            if name not in users:
                former = self._unwritten.get(name)
                users[name] = user = read_user(name, (uid, *who)) if former is None else former.copied()
                self._beside += settings_of(user)
        return found

    def bring_members(self, conv: Conv, found: list[tuple[int, str, Member]]) -> None:
        """A group has these members, all that are stored."""
        found.sort(key=lambda row: row[2].order)
        conv.members = members = {name: member for _, name, member in found}
        self._loaded(conv.name, members)

    def forget(self, lsns: Iterable[int], messages: Iterable[tuple[int, int]]) -> None:
        """Log rows were taken away, and the messages with these `(cid, seq)` are gone."""
        for lsn in lsns:
            self._read.drop(lsn)
        for key in messages:
            self._amended.pop(key, None)
            self.live.amended.pop(key, None)
            self.live.changes.pop(key, None)

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `State`."""
        live, uid = self.live, user.uid
        user.changed = live.last
        live.users[user.name] = user
        items = live.items.get(uid)
        if items is None:
            live.items[uid] = [pos, lsn]
        else:
            items.append(lsn)
        if conv is not None:
            live.put_latest(uid, conv.name, lsn)

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `State`."""
        live = self.live
        last, known, items, latest, told = live.last, live.users, live.items, live.latest, 0
        name = "" if conv is None else conv.name
        for user, pos in zip(users, positions, strict=True):
            user.changed = last
            known[user.name] = user
            uid = user.uid
            found = items.get(uid)
            if found is None:
                items[uid] = [pos, lsn]
            else:
                found.append(lsn)
            if name:
                newest = latest.get(uid)
                if newest is None:
                    latest[uid] = {name: lsn}
                else:
                    told += name not in newest
                    newest[name] = lsn
        live.told += told

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `State`."""
        self.live.put_latest(user.uid, conv.name, lsn)

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """See `State`."""
        self.live.requests[user.uid, request_id] = lsn

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
        lsn = self._newest(lambda generation: generation.packets, key) or self.projection.packet(key)
        return None if lsn is None else self._remembered(lsn)

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """See `State`."""
        self.live.keyed[sender, conv, key] = lsn

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """See `View`."""
        wanted = (sender, conv, key)
        lsn = self._newest(lambda generation: generation.keyed, wanted) or self.projection.keyed(wanted)
        return None if lsn is None else self.whole(lsn)

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
        found = self._named([(0, name) for name in nsmallest(limit, [other for other in names if other > name])])
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

    def marked(self, conv: Conv) -> list[tuple[str, Member]]:
        """See `interface.State`."""
        return marked_of(conv)

    def conv_names(self, user: User) -> list[str]:
        """See `interface.State`."""
        names = dict.fromkeys(self.projection.conv_names(user.uid))
        for generation in self._generations():
            names.update((conv.name, None) for conv, _ in generation.members.get(user.name, {}).values())
            names.update(dict.fromkeys(generation.latest.get(user.uid, ())))
        return list(names)

    def has_more_conversations(self, user: User, than: int) -> bool:
        """See `interface.State`."""
        live = sum(len(generation.members.get(user.name, {})) for generation in self._generations())
        return live > than or live + self.projection.count_convs(user.uid, than + 1) > than

    def share_group(self, user: str, other: str) -> bool:
        """See `interface.State`; it takes as long as the one who is in fewer groups is in."""
        fewer, more = sorted((self.user(user), self.user(other)), key=attrgetter("joined"))
        changed: set[int] = set()
        for generation in self._generations():
            for cid, (former, _) in generation.members.get(fewer.name, {}).items():
                if former.group and cid not in changed:
                    changed.add(cid)
                    conv = self.conv_for(former.name)
                    if conv.member(user) is not None and conv.member(other) is not None:
                        return True
        parts = [generation.members.get(more.name, {}) for generation in self._generations()]
        for cid, both in self.projection.groups_with(fewer.uid, more.uid):
            if cid not in changed:
                found = next((one[cid] for one in parts if cid in one), None)
                if both if found is None else self.conv_for(found[0].name).member(more.name) is not None:
                    return True
        return False
