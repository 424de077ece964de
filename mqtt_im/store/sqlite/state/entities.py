"""Users, conversations, members and devices: as the generations have them, else as the projections do.

They stay in memory. Those that a generation holds must; the others may be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.model import EVERYTHING, Conv, Device, Member, User, weigh
from mqtt_im.core.records import Act, AnyRecord, Cursors, DeviceChange, Message, ReadMark
from mqtt_im.shares import Bounds
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.sqlite.tables.projection import Projection

from .numbering import Numbering
from .overlay import Overlay

MAX_CACHED: Final = 50_000
"""Entities of each kind that stay in memory when nobody needs them."""
MAX_MEMBERS: Final = 400_000
"""Members of groups that stay in memory when nobody needs them."""
MAX_BESIDE: Final = 32 << 20
"""Bytes of what hangs on users that stay in memory when nobody needs them: the names they block and mute, and devices."""
NAME_BYTES: Final = 100
_DEVICE_BYTES: Final = 400
"""Bytes of one in memory, roughly."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Entities(Overlay):
    """Finds entities, and notes which of them were changed."""

    def __init__(self, log: Log, projection: Projection, bounds: Bounds, numbering: Numbering | None) -> None:
        super().__init__(log, projection, bounds)
        self._users: dict[str, User] = {}
        self._unwritten: dict[str, User] = {}
        """Users of the frozen generation of whom no row is made yet, as they are to be written: who is asked for is a copy."""
        self._convs: dict[str, Conv] = {}
        self._absent: set[str] = set()
        """Conversations that were looked for in this batch and do not exist."""
        self._groups: dict[str, int] = {}
        """Groups with their members in memory, and what those take (`core.model.weigh`); those that were used last at the end."""
        self._grouped = 0
        """Of these members together."""
        self._devices: dict[str, dict[str, Device]] = {}
        self._beside = 0
        """Bytes of what hangs on users, roughly: what ended since it was last counted is still in it."""
        self._kept_beside = 0
        """What of it had to stay when it was last counted."""
        self._numbering = numbering or Numbering(projection)
        self._stored_uids = self._numbering.next_uid
        """Users from this uid on have nothing in the projections yet."""

    @property
    def _heavy(self) -> bool:
        """Whether more hangs on users than may stay in memory when nobody needs it."""
        return self._beside > max(self._bounds.of(MAX_BESIDE), 2 * self._kept_beside)

    def _trim(self) -> None:
        """Entities that no generation holds may go, where there are many; between batches."""
        generations = self._generations()
        heavy = self._heavy
        if heavy or len(self._users) > self._bounds.of(MAX_CACHED):
            self._users = self._held_users()
        if len(self._convs) > self._bounds.of(MAX_CACHED):
            self._convs = {name: conv for held in reversed(generations) for name, conv in held.convs.items()}
            for held in generations:
                for parts in held.members.values():
                    for conv, _ in parts.values():
                        self._convs[conv.name] = conv
        if heavy or len(self._devices) > self._bounds.of(MAX_CACHED):
            kept = {name for held in generations for name in held.devices}
            self._devices = {name: found for name, found in self._devices.items() if name in kept}
        if heavy:
            devices = sum(map(len, self._devices.values()))
            self._beside = self._kept_beside = sum(map(settings_of, self._users.values())) + _DEVICE_BYTES * devices

    def _held_users(self) -> dict[str, User]:
        """Those that have to stay: of the live generation, and of the frozen one as far as they are written."""
        held = {} if self.frozen is None else self.frozen.users
        return {name: user for name, user in held.items() if name not in self._unwritten} | self.live.users

    def _freeze_users(self) -> None:
        """Users of the live generation stay as they are until their rows are made."""
        self._unwritten = self.live.users.copy()
        for name in self._unwritten:
            self._users.pop(name, None)

    def _written(self, users: Sequence[User]) -> None:
        """Rows are made of these users of the frozen generation."""
        for user in users:
            del self._unwritten[user.name]
            self._users.setdefault(user.name, user)

    def _uid_of(self, name: str) -> int:
        user = self._unwritten.get(name)
        return self.user(name).uid if user is None else user.uid

    def prefetch_next(self, records: Iterable[AnyRecord]) -> None:
        """As `prefetch_records`, of a log that is right, and nothing of these records was taken yet.

        So a direct conversation of which the first message comes is not there, and looking for it in a large store is spared.
        """
        self.prefetch_records(records, new=True)

    def prefetch_records(self, records: Iterable[AnyRecord], new: bool = False) -> None:
        """Whom and what these records of the log are about is in memory; `new`: see `prefetch_next`."""
        users = set[str]()
        owners = set[str]()
        convs = set[str]()
        begun = set[str]()
        marked = set[str]()
        for record in records:
            if isinstance(record, Act):
                if record.conv[0] == "#":
                    convs.add(record.conv)
                    users.add(record.by)
                else:
                    (begun if new and record.seq == 1 and type(record) is Message else convs).add(record.conv)
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
        self._prefetch_convs((convs | marked) - begun)
        self._absent |= begun.difference(self._convs)
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
                self._beside += _DEVICE_BYTES

    def _prefetch_users(self, names: set[str]) -> None:
        users = self._users
        missing = names.difference(users)
        if missing and self._unwritten:
            for name in missing & self._unwritten.keys():
                users[name] = self._unwritten[name].copied()
                missing.discard(name)
        if missing:
            for found in self.projection.users(list(missing)):
                users[found.name] = found
                self._beside += settings_of(found)
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

    def user(self, name: str) -> User:
        """See `View`."""
        user = self._users.get(name)
        if user is None:
            former = self._unwritten.get(name)
            user = self.projection.user(name) if former is None else former.copied()
            if user is None:
                user = User(self._numbering.user(name), name)
            self._users[name] = user
            self._beside += settings_of(user)
        return user

    def users(self, names: Sequence[str]) -> list[User]:
        """See `View`."""
        known = self._users
        try:
            return [known[name] for name in names]
        except KeyError:
            self._prefetch_users(set(names))
            return [self.user(name) for name in names]

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

    def touch_users(self, users: Sequence[User]) -> None:
        """See `State`."""
        last, known = self.live.last, self.live.users
        for user in users:
            user.changed = last
            known[user.name] = user

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

    def size_at_hand(self, group: str) -> int:
        """Members of a group that is in memory; else 0."""
        conv = self._convs.get(group)
        return 0 if conv is None else conv.size

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
        self._used(name, weigh(members))
        self._prefetch_users(set(members))

    def _used(self, name: str, size: int) -> None:
        """The members of the group are in memory, count as so many, and it is the one that was used last."""
        self._grouped += size - self._groups.pop(name, 0)
        self._groups[name] = size

    def _unload(self) -> None:
        """No more members of groups are in memory than there is room for, but for those that must be."""
        over = self._grouped - self._most_members()
        if over <= 0:
            return
        generations, gone = self._generations(), list[str]()
        for name, size in self._groups.items():
            if not any(name in generation.regrouped for generation in generations):
                gone.append(name)
                over -= size
                if over <= 0:
                    break
        for name in gone:
            self._grouped -= self._groups.pop(name)
            conv = self._convs.get(name)
            if conv is not None:
                self._leave(conv)

    def _most_members(self) -> int:
        """Of groups, that stay in memory when nobody needs them."""
        return self._bounds.of(MAX_MEMBERS)

    def _leave(self, conv: Conv) -> None:
        """The members of a group leave the memory."""
        conv.unload()

    def conv_for(self, name: str) -> Conv:
        """See `State`."""
        return self.conv(name) or self._new_conv(name)

    def _new_conv(self, name: str) -> Conv:
        conv = Conv(self._numbering.conv(name), name, self._members_of, self._part_of if name[0] == "#" else None)
        self._convs[name] = conv
        self._absent.discard(name)
        if conv.users is None:
            conv.members = {}
        else:
            live = self.live
            live.fresh.append(conv)
            live.convs[name] = conv
            for member in conv.users:
                self.touch_user(self.user(member))
        return conv

    def touch_conv(self, conv: Conv) -> None:
        """See `State`."""
        conv.changed = self.live.last
        self.live.convs[conv.name] = conv
        if conv.group and conv.loaded:
            self._used(conv.name, max(len(conv.members), self._groups.get(conv.name, 0)))

    def touch_member(self, conv: Conv, name: str) -> None:
        """See `State`."""
        conv.changed = self.live.last
        if conv.group:
            if conv.name not in self.live.regrouped:
                self.live.regrouped.add(conv.name)
                self.live.pinned += weigh(conv.members)
            self.live.pinned += 1
        parts = self.live.members.get(name)
        if parts is None:
            self.live.members[name] = {conv.cid: (conv, conv.members[name])}
            self.live.parts += 1
        else:
            self.live.parts += conv.cid not in parts
            parts[conv.cid] = conv, conv.members[name]
        self.live.convs[conv.name] = conv

    def touch_members(self, conv: Conv, names: Sequence[str]) -> None:
        """See `State`."""
        if not names:
            return
        self.touch_member(conv, names[0])
        live, changed, cid, new = self.live, self.live.members, conv.cid, 0
        members = conv.members
        for name in names[1:]:
            parts = changed.get(name)
            if parts is None:
                changed[name] = {cid: (conv, members[name])}
                new += 1
            else:
                new += cid not in parts
                parts[cid] = conv, members[name]
        live.parts += new
        if conv.group:
            live.pinned += len(names) - 1
            self._used(conv.name, weigh(members))

    def _prefetch_members(self, convs: list[Conv]) -> None:
        """The members of these direct conversations, which are nowhere in memory, are in memory."""
        self._prefetch_users({name for conv in convs for name in conv.users or ()})
        found = self.projection.members([(self.user(name).uid, conv.cid) for conv in convs for name in conv.users or ()])
        for conv in convs:
            conv.members = {
                name: found.get((self.user(name).uid, conv.cid)) or _everything(order)
                for order, name in enumerate(conv.users or ())
            }

    def in_log_order(self, user: User) -> bool:
        """See `interface.State`."""
        return True

    def waiting(self, user: User) -> int:
        """See `interface.State`."""
        return 0

    def not_taken(self, lsn: int) -> list[str]:
        """See `interface.State`."""
        return []

    def acknowledged(self, user: User) -> int:
        """Up to which position of the inbox any device of the user has ever acknowledged."""
        return user.acked

    def devices(self, user: str) -> dict[str, Device]:
        """The registered devices of a user, by name."""
        found = self._devices.get(user)
        if found is None:
            found = {device.device: device for device in self.projection.devices(self.user(user).uid, user)}
            self._devices[user] = found
            self._beside += _DEVICE_BYTES * len(found)
        return found

    def device(self, user: str, device: str) -> Device | None:
        """See `View`."""
        return self.devices(user).get(device)

    def exposed_devices(self) -> set[tuple[str, str]]:
        """User and device of all that are `exposed`."""
        found = self.projection.exposed_devices()
        for generation in reversed(self._generations()):
            for user, devices in generation.devices.items():
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
            self._beside += _DEVICE_BYTES
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


def settings_of(user: User) -> int:
    """Bytes of the names that the user blocks and mutes."""
    return NAME_BYTES * (len(user.blocks) + len(user.mutes)) if user.blocks or user.mutes else 0


def _everything(order: int) -> Member:
    member = Member(order)
    member.spans = EVERYTHING
    return member
