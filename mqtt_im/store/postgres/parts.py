"""The members of a group whose row is locked, as a batch sees them."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, MutableMapping, ValuesView
from typing import Protocol

from mqtt_im.core.model import Conv, Member


class Host(Protocol):
    """The state of the batch, which has locked the group."""

    def part_of(self, conv: Conv, name: str) -> Member | None:
        """One member of a group, as the tables have it."""

    def all_of(self, conv: Conv) -> dict[str, Member]:
        """All members of a group. Raises `Anew` while a batch is decided that has not asked for them, and would tell them."""


class Parts(MutableMapping[str, Member]):
    """Members of a group, read one by one as they are asked for; who wants to see them all has to have told so."""

    def __init__(self, state: Host, conv: Conv) -> None:
        self._state = state
        self._conv = conv
        self._held: dict[str, Member] = {}
        self._absent: set[str] = set()

    def _known(self, name: str) -> bool:
        if name in self._held:
            return True
        if name not in self._absent:
            member = self._state.part_of(self._conv, name)
            if member is not None:
                self._held[name] = member
                return True
            self._absent.add(name)
        return False

    def __getitem__(self, name: str) -> Member:
        if not self._known(name):
            raise KeyError(name)
        return self._held[name]

    def __setitem__(self, name: str, member: Member) -> None:
        self._held[name] = member

    def __delitem__(self, name: str) -> None:
        if not self._conv.large:
            del self._state.all_of(self._conv)[name]
        elif self._known(name):
            del self._held[name]
        else:
            raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._known(name)

    def keep(self, found: dict[str, Member], asked: Iterable[str]) -> None:
        """These were looked up together."""
        self._held.update(found)
        self._absent.update(name for name in asked if name not in found)

    def held(self) -> dict[str, Member]:
        """Those that were read or set."""
        return self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._state.all_of(self._conv))

    def __len__(self) -> int:
        return len(self._state.all_of(self._conv))

    def keys(self) -> KeysView[str]:
        """See `dict`."""
        return self._state.all_of(self._conv).keys()

    def values(self) -> ValuesView[Member]:
        """See `dict`."""
        return self._state.all_of(self._conv).values()

    def items(self) -> ItemsView[str, Member]:
        """See `dict`."""
        return self._state.all_of(self._conv).items()
