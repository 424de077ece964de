"""The view of the state that the rules need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .model import Amended, Conv, Device, Upload, User
from .records import AnyRecord


class View(Protocol):
    """What the rules may ask of the state. Everything answers from committed and pending records alike."""

    def user(self, name: str) -> User:
        """The user of this name, as new where it has left no trace yet."""

    def users(self, names: Sequence[str]) -> list[User]:
        """The users of these names, in their order; for many of them cheaper than one by one."""

    def has_account(self, name: str) -> bool:
        """Whether messages may go to this name."""

    def conv(self, name: str) -> Conv | None:
        """The conversation of this name, if a message or a group change made it."""

    def device(self, user: str, device: str) -> Device | None:
        """The registered device."""

    def device_count(self, user: str) -> int:
        """How many devices of the user are registered."""

    def changes(self, conv: Conv, seq: int, user: str) -> int:
        """How many edits, reactions and reports of a message the user has made."""

    def request(self, user: str, request_id: str) -> AnyRecord | None:
        """The first record that this id of this user has made."""

    def packet(self, user: str, device: str, session: str, packet_id: int) -> AnyRecord | None:
        """The newest record made by a PUBLISH without id of this session and packet identifier."""

    def message(self, conv: Conv, seq: int) -> AnyRecord | None:
        """The record of a message; None where it was trimmed or never was."""

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """What became of a message."""

    def keyed(self, sender: str, conv: str, key: str) -> AnyRecord | None:
        """The newest message with this key."""

    def delivered(self, user: str, after: int, upto: int) -> list[str | int]:
        """`[conv, seq, …]`: the newest message of others, in each conversation, among the items from after `after` to `upto`."""

    def upload(self, file: str) -> Upload | None:
        """The uploaded file with this id, as long as it is kept."""

    def claim_all(self, items: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        """Take these items back, `(user, pos)` each, before any device has been offered them; those of which none had been."""
