"""Items with a `key` that a batch takes back before any device was offered them (INV-12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from .state.projected import ProjectedState


class TakingBack:
    """What the batch has taken back, so that it can be offered again where the batch fails.

    `claim` and `unclaim` ask and tell those who offer: whether an item was not offered yet, and that it may be again.
    """

    def __init__(self, claim: Callable[[str, int], bool], unclaim: Callable[[str, int], None]) -> None:
        self._claim = claim
        self._unclaim = unclaim
        self._taken: list[tuple[str, int]] = []
        self._state: ProjectedState
        self._loaded_upto = 0
        self._cut_off: Set[str] = frozenset()

    def begin(self, state: ProjectedState, loaded_upto: int, cut_off: Set[tuple[str, str]]) -> None:
        """A former server may have offered what it had committed, up to row `loaded_upto`, to the devices in `cut_off`."""
        self._state = state
        self._loaded_upto = loaded_upto
        self._cut_off = {user for user, _ in cut_off}

    def take_all(self, items: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        """Those of these items that could be taken back, `(user, pos)` each."""
        claim, cut_off, taken, before = self._claim, self._cut_off, self._taken, len(self._taken)
        for item in items:  # each noted at once, since looking for the next one may fail
            user, pos = item
            if not (user in cut_off and self._may_be_offered(user, pos)) and claim(user, pos):
                taken.append(item)
        return taken[before:]

    def _may_be_offered(self, user: str, pos: int) -> bool:
        """Whether the former server may have offered it."""
        found = self._state.items(self._state.user(user), pos - 1, 1)
        return bool(found) and abs(found[0][1]) <= self._loaded_upto

    def keep(self) -> None:
        """The batch is committed."""
        self._taken.clear()

    def undo(self, state: ProjectedState) -> None:
        """What a failed batch has taken back may be offered again, unless the batch was kept after all.

        What it had made itself may too: there is no such item, but another one will have its number.
        """
        for name, pos in self._taken:
            found = state.items(state.user(name), pos - 1, 1)
            if not found or found[0][0] != pos or found[0][1] > 0:
                self._unclaim(name, pos)
        self._taken.clear()
