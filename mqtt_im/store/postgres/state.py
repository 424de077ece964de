"""The ledger's state: what a batch changes of what it has locked (`locked`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast, get_args

from mqtt_im.core.apply import apply
from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, Upload, User
from mqtt_im.core.records import Act, AnyRecord, DeviceChange
from mqtt_im.store.interface import Anew

from . import tables
from .large import LOOK_BACK, Group
from .locked import Locked
from .node import Fence, Inherited
from .telling import Telling
from .wire import Link

_ACTS: Final = frozenset(kind for kind in get_args(AnyRecord) if issubclass(kind, Act))
"""To ask for a type among these takes a tenth of `isinstance`, for structures of msgspec."""


class Work(Locked):
    """`interface.State` for the ledger, with what `core.state.State` asks."""

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
        most_at_once: Callable[[], int],
    ) -> None:
        """`began_at` is the newest log row when this server began, `cut_off` what those before it have left (`Fence`).

        A group with more than `most_at_once` members becomes large, as that is now.
        """
        super().__init__(link, has_account, upload)
        self.telling = Telling(self, most_at_once)
        self._fence = fence
        self._take_back = claim
        self._began_at = began_at
        self._cut_off = cut_off
        self._inherited = inherited
        self._forget_changes()

    def _forget_changes(self) -> None:
        self.changed_users: dict[str, User] = {}
        self.touched: set[str] = set()
        """Those of them of whom more may be another than what a new item and a message of theirs change."""
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
        self._at = 0
        self._recent: dict[int, AnyRecord] = {}

    def forget(self) -> None:
        """See `Look`; what the batch has changed is forgotten too."""
        super().forget()
        self.telling.forget()
        self._forget_changes()

    @property
    def has_changes(self) -> bool:
        """Whether the batch is to be committed."""
        return bool(self.rows or self.changed_users or self.changed_members or self.changed_devices or self.changed_convs)

    @property
    def amended_convs(self) -> set[str]:
        """Conversations of which the batch has changed a message that was there, something about it, or who has it."""
        cids = {*self.voided, *(cid for cid, _ in self.changed_amended)}
        if not cids:
            return self.telling.replaced_in
        return self.telling.replaced_in | {conv.name for conv in self._convs.values() if conv is not None and conv.cid in cids}

    def committed(self) -> None:
        """What was changed stands in the tables; it may still be looked at."""
        self.deciding = False

    # Entities.

    def touch_user(self, user: User) -> None:
        """See `core.state.State`."""
        self.changed_users[user.name] = user
        self.touched.add(user.name)

    def conv_for(self, name: str) -> Conv:
        """See `core.state.State`."""
        conv = self._convs.get(name)
        if conv is None:
            conv = self.conv(name) or self._new_conv(name)
        return conv

    def _new_conv(self, name: str) -> Conv:
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
        """See `core.state.State`."""
        self.changed_convs[conv.name] = conv

    def touch_member(self, conv: Conv, name: str) -> None:
        """See `core.state.State`."""
        self.changed_members.add((conv.name, name))

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

    def device_for(self, user: str, device: str, now: int) -> Device:
        """See `core.state.State`."""
        devices = self.devices(user)
        if device not in devices:
            devices[device] = Device(user, device, now)
        return devices[device]

    def touch_device(self, device: Device) -> None:
        """See `core.state.State`."""
        self.changed_devices[device.user, device.device] = device

    def drop_device(self, user: str, device: str) -> None:
        """See `core.state.State`."""
        owner = self.user(user)
        self.devices(user).pop(device, None)
        owner.acked = max(owner.acked, self._acked.pop((user, device), 0))
        self._servers.pop((user, device), None)
        self._left.pop((user, device), None)
        self.acked_anew.add(user)
        self.touch_user(owner)
        self.changed_devices[user, device] = None

    def acked_of(self, user: str, device: str) -> int:
        """Up to where the device has acknowledged; what its user's mark has grown by in the batch counts as this one's."""
        owner = self._users[user]
        stored = self.stored_users[owner.uid]
        return max(self._acked.get((user, device), 0), owner.acked if owner.acked > stored[7] else 0)

    def time_of(self, conv: str) -> int:
        """When the conversation last had a record, in ms since 1970."""
        return self._times.get(conv, 0)

    def claim(self, user: str, pos: int) -> bool:
        """See `View`."""
        for name, device in self.devices(user).items():
            if self._acked.get((user, name), 0) >= pos:
                return False
            left = self._left.get((user, name), 0)
            if device.exposed and not 0 < left < pos and not self._is_ours(user, name, pos):
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

    def take(self, lsn: int, record: AnyRecord) -> tuple[Conv, list[str]] | None:
        """The record is part of the batch; of an `Act`, its conversation and what `apply` does are returned. Raises `Anew`."""
        self._at = lsn
        self._recent[lsn] = record
        if type(record) not in _ACTS:
            if isinstance(record, DeviceChange) and record.exposed:
                self._attach(record.user, record.device)
            apply(self, lsn, record)
            return None
        act = cast("Act", record)
        conv = self.conv_for(act.conv)
        self.rows[lsn] = [conv.cid, 0, 0, None, record]
        names = apply(self, lsn, record) or []
        self._times[conv.name] = record.ts
        self.changed_convs[conv.name] = conv
        if conv.group and isinstance(conv, Group):
            self.telling.tell(conv, lsn, act, names)
        return conv, names

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
        self._left[key] = 0

    def left(self, user: str, device: str) -> None:
        """This server offers the device nothing more until it comes again; what is there now it may have."""
        self._left[user, device] = self.user(user).head

    def left_of(self, user: str, device: str) -> tuple[int, int]:
        """The last two columns of a device's row."""
        left = self._left.get((user, device), 0)
        return (self.server_of(user, device) if left else 0), left

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
        """See `core.state.State`."""
        self.changed_users[user.name] = user
        self._inboxes[user.uid].append(pos, lsn)

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.state.State`; it follows from the conversation and the member's part."""

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """See `core.state.State`."""
        self._void(user, pos, conv.cid)

    def _void(self, user: User, pos: int, cid: int) -> None:
        inbox = self._inboxes[user.uid]
        if pos >= inbox.first:
            inbox.tail[pos - inbox.first] = -abs(inbox.tail[pos - inbox.first])
        else:
            first, refs = self._chunk(user, pos)
            refs[pos - first] = -abs(refs[pos - first])
        self.voided.add(cid)
        self.replaced.add(user.uid)
        self.touch_user(user)

    def find_devices(self, users: Iterable[User]) -> None:
        """See `telling.Batch`."""
        names = {user.uid: user.name for user in users if user.name not in self._devices}
        if names:
            self._keep_devices(names)

    def replace_item(self, user: User, lsn: int, cid: int) -> int:
        """See `telling.Batch`."""
        inbox = self._inboxes[user.uid]
        if lsn in inbox.tail:
            pos = inbox.first + inbox.tail.index(lsn)
        else:
            items = self.stored_items(user, max(user.acked, user.lowest, user.head - LOOK_BACK), LOOK_BACK)
            pos = next((at for at, ref in items if ref == lsn), 0)
        if pos <= max(user.acked, user.lowest) or not self.claim(user.name, pos):
            return 0
        self._void(user, pos, cid)
        return pos

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

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """See `core.state.State`."""
        self.rows[lsn][1:3] = seq, by.uid if by is not None else 0
        self._said[conv.cid, seq] = lsn

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """See `core.state.State`."""
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
        """See `core.state.State`."""
        lsn = self._said.get((conv.cid, seq))
        if lsn is None:
            self.hidden.add((conv.cid, seq))
        else:
            self.rows[lsn][2] = 0

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """See `core.state.State`."""
        self.mentions.append((conv.cid, user, seq))

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """See `core.state.State`."""
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
        """See `core.state.State`."""
        self.counts[conv.cid, seq, user.uid] = self.changes(conv, seq, user.name) + 1

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """See `core.state.State`."""
        key = tables.hash_of(user.uid, request_id)
        self.rows[lsn][3] = key
        self._requests[key] = self._recent[lsn]

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """See `core.state.State`."""
        self.packets[self.user(user).uid, device, session, packet_id] = lsn

    def packet(self, user: str, device: str, session: str, packet_id: int) -> AnyRecord | None:
        """See `View`."""
        lsn = self.packets.get((self.user(user).uid, device, session, packet_id))
        return self._recent[lsn] if lsn is not None else super().packet(user, device, session, packet_id)

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """See `core.state.State`."""
        found = self.conv_for(conv)
        name = self.user(sender).uid, found.cid, key
        if found.large:
            self.telling.replaces(lsn, *name, self.keys.get(name))
        self.keys[name] = lsn

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """See `View`."""
        found = self.conv(conv)
        lsn = self.keys.get((self.user(sender).uid, found.cid, key)) if found is not None else None
        return self._recent[lsn] if lsn is not None else super().keyed(sender, conv, key)
