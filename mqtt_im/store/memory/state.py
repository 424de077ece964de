"""What the store in memory knows, in plain dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, Upload, User
from mqtt_im.core.records import MESSAGES, Act, AnyRecord
from mqtt_im.store.common.activity import ByActivity


class MemoryState(ByActivity):
    """`interface.State` in dicts."""

    def __init__(
        self,
        has_account: Callable[[str], bool],
        claim: Callable[[str, int], bool],
        upload: Callable[[str], Upload | None] = lambda _: None,
    ) -> None:
        self.has_account = has_account
        self.claim = claim
        self.upload = upload
        self.log: dict[int, AnyRecord] = {}
        """Log row → record; a row that retention took is not there."""
        self._users: dict[str, User] = {}
        self._convs: dict[str, Conv] = {}
        self._devices: dict[tuple[str, str], Device] = {}
        self._amended: dict[tuple[str, int], Amended] = {}
        self._changes: dict[tuple[str, int, str], int] = {}
        self._items: dict[tuple[str, int], int] = {}
        self._voids: set[tuple[str, int]] = set()
        self._messages: dict[tuple[str, int], tuple[int, str | None]] = {}
        self._mentions: set[tuple[str, int, str]] = set()
        self._requests: dict[tuple[str, str], int] = {}
        self._packets: dict[tuple[str, str, str, int], int] = {}
        self._keyed: dict[tuple[str, str, str], int] = {}

    # Entities.

    def user(self, name: str) -> User:
        """See `View`."""
        if name not in self._users:
            self._users[name] = User(len(self._users) + 1, name)
        return self._users[name]

    def user_names(self, after: str, limit: int) -> list[str]:
        """See `interface.State`."""
        return sorted(name for name, user in self._users.items() if name > after and (user.head or user.registered))[:limit]

    def touch_user(self, user: User) -> None:
        """See `core.state.State`."""

    def conv(self, name: str) -> Conv | None:
        """See `View`."""
        return self._convs.get(name)

    def conv_for(self, name: str) -> Conv:
        """See `core.state.State`."""
        if name not in self._convs:
            conv = self._convs[name] = Conv(len(self._convs) + 1, name)
            for order, user in enumerate(conv.users or ()):
                conv.members[user] = Member(order)
                conv.members[user].spans = EVERYTHING
        return self._convs[name]

    def touch_conv(self, conv: Conv) -> None:
        """See `core.state.State`."""

    def touch_member(self, conv: Conv, name: str) -> None:
        """See `core.state.State`."""

    def _active(self, user: User, above: int, below: int, limit: int) -> list[tuple[int, Conv]]:
        return [(conv.members[user.name].activity(conv), conv) for conv in self._convs.values() if user.name in conv.members]

    def conv_names(self, user: User) -> list[str]:
        """See `interface.State`."""
        return [conv.name for conv in self._convs.values() if user.name in conv.members]

    def has_more_conversations(self, user: User, than: int) -> bool:
        """See `interface.State`."""
        return len(self.conv_names(user)) > than

    def share_group(self, user: str, other: str) -> bool:
        """See `interface.State`."""
        return any(conv.group and conv.member(user) and conv.member(other) for conv in self._convs.values())

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
        """See `interface.State`."""
        return user.acked

    def devices(self, user: str) -> dict[str, Device]:
        """See `interface.State`."""
        return {name: device for (owner, name), device in self._devices.items() if owner == user}

    def device(self, user: str, device: str) -> Device | None:
        """See `View`."""
        return self._devices.get((user, device))

    def device_count(self, user: str) -> int:
        """See `View`."""
        return len(self.devices(user))

    def device_for(self, user: str, device: str, now: int) -> Device:
        """See `core.state.State`."""
        return self._devices.setdefault((user, device), Device(user, device, now))

    def touch_device(self, device: Device) -> None:
        """See `core.state.State`."""

    def drop_device(self, user: str, device: str) -> None:
        """See `core.state.State`."""
        self._devices.pop((user, device), None)

    def exposed_devices(self) -> set[tuple[str, str]]:
        """User and device of all to which something may have been in flight."""
        return {name for name, device in self._devices.items() if device.exposed}

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""
        return self._amended.get((conv.name, seq))

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """See `core.state.State`."""
        return self._amended.setdefault((conv.name, seq), Amended())

    def changes(self, conv: Conv, seq: int, user: str) -> int:
        """See `View`."""
        return self._changes.get((conv.name, seq, user), 0)

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """See `core.state.State`."""
        self._changes[conv.name, seq, user.name] = self.changes(conv, seq, user.name) + 1

    # The log, and what points into it.

    def record(self, lsn: int) -> AnyRecord | None:
        """See `interface.State`."""
        return self.log.get(lsn)

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """See `interface.State`."""
        return {lsn: self.log[lsn] for lsn in lsns if lsn in self.log}

    def first_records(self, lsns: list[int], max_bytes: int) -> tuple[dict[int, AnyRecord], int]:
        """See `interface.State`."""
        return self.records(lsns), 0

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """See `interface.State`."""
        keys = {lsn: (record.conv, record.seq) for lsn, record in records.items() if isinstance(record, Act)}
        return {lsn: self._amended[key] for lsn, key in keys.items() if key in self._amended}

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`."""
        self._items[user.name, pos] = lsn

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.state.State`."""

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """See `core.state.State`."""
        self._voids.add((user.name, pos))

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """See `interface.State`."""
        found = []
        for pos in range(max(after, user.begin) + 1, user.head + 1):
            lsn = self._items.get((user.name, pos))
            if lsn is not None:
                found.append((pos, -lsn if (user.name, pos) in self._voids else lsn))
        return found[:limit]

    def delivered(self, user: str, after: int, upto: int) -> list[str | int]:
        """See `View`."""
        marks: dict[str, int] = {}
        for _, lsn in self.items(self.user(user), after, upto - after):
            record = self.log.get(abs(lsn))
            if isinstance(record, MESSAGES) and record.by != user:
                marks[record.conv] = max(record.seq, marks.get(record.conv, 0))
        return [part for mark in marks.items() for part in mark]

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """See `core.state.State`."""
        self._messages[conv.name, seq] = lsn, by.name if by is not None else None

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """The log row of a message."""
        found = self._messages.get((conv.name, seq))
        return None if found is None else found[0]

    def message(self, conv: Conv, seq: int) -> AnyRecord | None:
        """See `View`."""
        lsn = self.message_lsn(conv, seq)
        return None if lsn is None else self.log.get(lsn)

    def messages(self, conv: Conv, first: int, last: int) -> list[tuple[int, int]]:
        """See `interface.State`."""
        found = [(seq, self.message_lsn(conv, seq)) for seq in range(first, min(last, conv.head) + 1)]
        return [(seq, lsn) for seq, lsn in found if lsn is not None]

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        """See `interface.State`."""
        found = [seq for seq, _ in self.messages(conv, first, last)]
        return (min if upward else max)(found, default=None)

    def unread(self, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """See `interface.State`."""
        found: dict[str, tuple[int, int]] = {}
        for conv, first, last in parts:
            unread, mentions = found.get(conv.name, (0, 0))
            for seq in range(first, last + 1):
                message = self._messages.get((conv.name, seq))
                if message is not None and message[1] not in (None, user.name):
                    unread += 1
                    mentions += any((conv.name, seq, who) in self._mentions for who in ("*", user.name))
            found[conv.name] = unread, mentions
        return found

    def hide_message(self, conv: Conv, seq: int) -> None:
        """See `core.state.State`."""
        lsn, _ = self._messages[conv.name, seq]
        self._messages[conv.name, seq] = lsn, None

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """See `core.state.State`."""
        self._mentions.add((conv.name, seq, user))

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """See `core.state.State`."""
        self._requests[user.name, request_id] = lsn

    def request(self, user: str, request_id: str) -> AnyRecord | None:
        """See `View`."""
        return self.log.get(self._requests.get((user, request_id), 0))

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """See `core.state.State`."""
        self._packets[user, device, session, packet_id] = lsn

    def packet(self, user: str, device: str, session: str, packet_id: int) -> AnyRecord | None:
        """See `View`."""
        return self.log.get(self._packets.get((user, device, session, packet_id), 0))

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """See `core.state.State`."""
        self._keyed[sender, conv, key] = lsn

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """See `View`."""
        return self.log.get(self._keyed.get((sender, conv, key), 0))
