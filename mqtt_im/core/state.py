"""What applying asks of a state: entities to change, and rows to add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mqtt_im.compiling import mypyc_attr

from .model import Amended, Conv, Device, User


class State(Protocol):
    """What applying needs of a state: entities to change, and rows to add.

    Entities handed out may be changed; `touch_…` says that one was. `lsn` is the log row that a thing came with.
    """

    def user(self, name: str) -> User:
        """The user of this name, made where there was none."""

    def users(self, names: Sequence[str]) -> list[User]:
        """The users of these names, in their order."""

    def touch_user(self, user: User) -> None:
        """The user was changed."""

    def touch_users(self, users: Sequence[User]) -> None:
        """The same of each of these."""

    def conv_for(self, name: str) -> Conv:
        """The conversation of this name, made where there was none; a direct one with its two members."""

    def touch_conv(self, conv: Conv) -> None:
        """The conversation was changed, its members aside."""

    def touch_member(self, conv: Conv, name: str) -> None:
        """A member was added or changed."""

    def touch_members(self, conv: Conv, names: Sequence[str]) -> None:
        """The same of each of these."""

    def device_for(self, user: str, device: str, now: int) -> Device:
        """The device, made where there was none."""

    def touch_device(self, device: Device) -> None:
        """The device was changed."""

    def drop_device(self, user: str, device: str) -> None:
        """The device is gone."""

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """What became of a message, made where nothing had; counts as changed."""

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """The user was changed, whose inbox has a new item: a message of `conv`, or something else where that is None."""

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """The same of each of these, with the position of each."""

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """The newest message of the conversation that the user may read has this log row; `put_item` says so too."""

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """An item was replaced, a message of this conversation; a look that has shown it is over."""

    def void_items(self, users: Sequence[User], positions: Sequence[int], conv: Conv) -> None:
        """The same of one item of each of these."""

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """The conversation has a new message; `by` is None for one that counts as unread for nobody, such as the system's."""

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """The log row of a message; None where it is gone, or never was."""

    def hide_message(self, conv: Conv, seq: int) -> None:
        """A message was recalled, and counts as unread for nobody from now on."""

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """The user has made one more edit, reaction or report of a message."""

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """A message mentions a user, or everybody (`*`)."""

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """An id was used."""

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """A PUBLISH without id made something."""

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """A message with a key was sent."""


@mypyc_attr(allow_interpreted_subclasses=True)
class OneByOne:
    """What `State` and `core.view.View` are asked for many at once, for one that does it one after the other."""

    def users(self: Any, names: Sequence[str]) -> list[User]:
        """See `State`."""
        return [self.user(name) for name in names]

    def touch_users(self: Any, users: Sequence[User]) -> None:
        """See `State`."""
        for user in users:
            self.touch_user(user)

    def touch_members(self: Any, conv: Conv, names: Sequence[str]) -> None:
        """See `State`."""
        for name in names:
            self.touch_member(conv, name)

    def put_items(self: Any, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `State`."""
        for user, pos in zip(users, positions, strict=True):
            self.put_item(user, pos, lsn, conv)

    def void_items(self: Any, users: Sequence[User], positions: Sequence[int], conv: Conv) -> None:
        """See `State`."""
        for user, pos in zip(users, positions, strict=True):
            self.void_item(user, pos, conv)

    def claim_all(self: Any, items: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        """See `core.view.View`."""
        return [item for item in items if self.claim(*item)]
