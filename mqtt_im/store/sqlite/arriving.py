"""Large groups, and many users, come to memory a part with each batch, so that nobody waits for all of them.

What was begun goes on with each batch until it is there, whoever's turn it is; who asks for another group waits. Raises
`interface.Later` where something is not there yet.

What has come may have to go again before the turn of who waits for it comes, where many wait for much, or there is little memory.
Who has had it brought twice gets it `at_once`, so that nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mqtt_im.core.model import Conv, Member
from mqtt_im.store.interface import Later

from .state.projected import PART, ProjectedState

_WEIGHT: Final = 1.5
"""Of one of them, in the measure of `Store.weight`."""


def enough(count: int) -> float:
    """What is brought for a job that waits for so many, if they come twice, in the measure of `Store.weight`."""
    return 2 * _WEIGHT * max(count, PART)


class Arriving:
    """What is on its way to a state."""

    def __init__(self, state: ProjectedState) -> None:
        self._state = state
        self._waited = False
        """Whether somebody in this batch has to wait."""
        self._left = PART
        """What may still be read in this batch."""
        self._conv: Conv | None = None
        """A group of which some members were read, those up to `_uid`, and which was not changed since `_changed`."""
        self._uid = 0
        self._changed = 0
        self._found: list[tuple[int, str, Member]] = []

    def begin(self) -> None:
        """A batch begins, for which whatever has come stays in memory, as long as somebody waits for more."""
        self._left = PART
        self._state.keeps, self._waited = self._waited, False
        if self._conv is not None:
            self._go_on(self._conv)

    def users(self, names: Sequence[str], at_once: bool) -> None:
        """These users are in memory."""
        missing = self._state.unknown(names)
        some = missing if at_once else missing[: self._left]
        if some:
            self._left = max(0, self._left - len(some))
            self._state.bring_users(some)
        if len(some) < len(missing):
            self._waited = True
            raise Later(_WEIGHT * len(some))

    def members(self, conv: Conv, at_once: bool) -> None:
        """The members of the group are in memory, and who they are."""
        if conv.loaded or at_once:
            self.users(list(conv.members), at_once)
            return
        if self._conv is not None or not self._left:
            self._waited = True
            raise Later
        self._conv, self._uid, self._changed, self._found = conv, 0, conv.changed, []
        self._go_on(conv)
        if not conv.loaded:
            self._waited = True
            raise Later(_WEIGHT * max(conv.size, PART))

    def _go_on(self, conv: Conv) -> None:
        if conv.loaded or conv.changed != self._changed:  # somebody needed all of it at once
            self._conv = None
            return
        found = self._state.some_members(conv, self._uid, self._left)
        self._found += found
        whole = len(found) < self._left
        self._left -= len(found)
        if whole:
            self._conv = None
            self._state.bring_members(conv, self._found)
        else:
            self._uid = found[-1][0]
