"""What a user keeps, as an operator is told, beside a running server or without one."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mqtt_im.core.model import User


class Known(Protocol):
    """What is asked of a store's state."""

    def user(self, name: str) -> User:
        """See `View`."""

    def device_count(self, user: str) -> int:
        """See `View`."""


class Kept(NamedTuple):
    """The figures that `[quota]` bounds, how many of the groups the user has made, and whether who logs in finds anything."""

    messages: int = 0
    bytes: int = 0
    groups: int = 0
    made: int = 0
    devices: int = 0
    blocks: int = 0
    mutes: int = 0
    inbox: bool = False


def kept(state: Known, name: str) -> Kept | None:
    """What the user keeps; None where nothing ever was."""
    user = state.user(name)
    devices = state.device_count(name)
    if not user.head and not user.sent and not devices:
        return None
    inbox = user.head > user.begin or user.registered or bool(user.blocks or user.mutes)
    return Kept(user.kept, user.kept_bytes, user.joined, user.made, devices, len(user.blocks), len(user.mutes), inbox)
