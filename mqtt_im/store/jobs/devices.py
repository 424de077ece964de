"""What jobs tell of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable


class DeviceState:
    """A registered device and its inbox, as of one moment."""

    __slots__ = ("app", "cursor", "floor", "head", "n", "registered")

    def __init__(self, cursor: int, head: int, floor: int, n: int, app: bool, registered: bool) -> None:
        self.cursor = cursor
        self.head = head
        self.floor = floor
        self.n = n
        self.app = app
        self.registered = registered

    @classmethod
    def read(cls, engine: Readable, user: str, device: str) -> DeviceState:
        """The state now."""
        owner = engine.state.user(user)
        found = engine.state.device(user, device)
        if found is None:
            return cls(owner.head, owner.head, owner.lowest, 0, False, False)
        return cls(found.cursor, owner.head, owner.lowest, found.n, found.app, True)
