"""What a user may search: the conversations, and of each the part that the user may read, learnt little by little.

A user may have tens of thousands of conversations. They are learnt once, some at a time, so that others have their turns in
between; then only those are looked at again in which something was said since, which membership never changes without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from mqtt_im.core.model import FOREVER, Conv, Member
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import possible_conv

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable

_STEP: Final = 5_000
AT_ONCE: Final = 200
"""Conversations that are looked at in one step."""
_PART_BYTES: Final = 700
_SPAN_BYTES: Final = 130
"""Of what is known of a conversation, and of each span of it, in memory."""


class Part(msgspec.Struct, frozen=True):
    """What a user may read of one conversation: `spans` of seqs, all within the log rows `first` … `last`."""

    conv: str
    first: int
    last: int
    spans: tuple[tuple[int, int], ...]


class Reach:
    """What one user may search, by conversation, as far as it was learnt; and by the numbers that an index gives to these.

    Whoever searches for the user may add to it or look for numbers, one at a time.
    """

    __slots__ = ("_ending", "_key", "_numbered", "_unnumbered", "bytes", "parts")

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts: dict[str, Part] = {}
        self._key: object = None
        self._numbered: dict[int, Part] = {}
        self._unnumbered: dict[str, Part] = {}
        self._ending: dict[int, dict[int, Part]] = {}
        """Numbered ones by where they end, in steps of `_STEP` log rows."""
        self.bytes = 0
        """What it takes in memory, roughly."""
        self.add(parts)

    def add(self, parts: Iterable[Part]) -> None:
        """This was learnt."""
        for part in parts:
            former = self.parts.get(part.conv)
            self.bytes += _weight(part) - (0 if former is None else _weight(former))
            self.parts[part.conv] = self._unnumbered[part.conv] = part

    def numbered(self, key: object, number: Callable[[str], int]) -> Mapping[int, Part]:
        """The parts by what `number` says of their conversations: always the same, as long as `key` is.

        Only what was learnt since the last time is looked up.
        """
        if key != self._key:
            self._key, self._numbered, self._unnumbered = key, {}, dict(self.parts)
            self._ending = {}
        for part in self._unnumbered.values():
            cid = number(part.conv)
            former = self._numbered.get(cid)
            if former is not None:
                del self._ending[former.last // _STEP][cid]
            self._numbered[cid] = part
            self._ending.setdefault(part.last // _STEP, {})[cid] = part
        self._unnumbered.clear()
        return self._numbered

    def ending(self) -> list[tuple[int, Mapping[int, Part]]]:
        """What `numbered` told last in groups, those that end last first, each with a log row behind which none of it ends."""
        return [((step + 1) * _STEP - 1, self._ending[step]) for step in sorted(self._ending, reverse=True)]


class Place(msgspec.Struct, frozen=True):
    """How far the conversations of a user are known: all with an activity up to log row `upto`, but for those below `below`.

    Then those with a later activity are learnt by name: `name` is the last one so far, and `next_upto` what follows `upto`.
    """

    upto: int = 0
    below: int = FOREVER
    name: str | None = None
    next_upto: int = 0


class Step(msgspec.Struct, frozen=True):
    """What was learnt in one step, the place where the next one begins, and whether everything is known."""

    parts: list[Part]
    place: Place
    done: bool


def _weight(part: Part) -> int:
    return _PART_BYTES + _SPAN_BYTES * len(part.spans)


def searchable(engine: Readable, who: Who, name: str) -> list[Part]:
    """What the user may read of the conversation `name`. Raises `not_member`."""
    conv = possible_conv(engine.state, who, name)[0]
    member = conv.part(who.user)
    return [] if member is None else [_part_of(engine, conv, member)]


def learn(engine: Readable, user: str, place: Place) -> Step:
    """One step further. What is committed after the last step, `done`, is found by going on from its place."""
    if place.below:
        found = engine.state.latest(engine.state.user(user), place.below, AT_ONCE)
        upto = place.upto or (found[0][0] if found else 0)
        below = found[-1][0] if len(found) == AT_ONCE else 0
        return Step(_parts(engine, user, found), Place(upto, below), done=False)
    owner = engine.state.user(user)
    if place.name is None:
        newest = engine.state.latest(owner, FOREVER, 1)
        upto = newest[0][0] if newest else place.upto
        if upto <= place.upto:
            return Step([], place, done=True)
    else:
        upto = place.next_upto
    found = engine.state.later(owner, place.upto, place.name or "", AT_ONCE)
    parts = _parts(engine, user, found)
    if len(found) < AT_ONCE:
        return Step(parts, Place(upto, 0), done=True)
    return Step(parts, Place(place.upto, 0, found[-1][1].name, upto), done=False)


def _parts(engine: Readable, user: str, found: list[tuple[int, Conv]]) -> list[Part]:
    return [_part_of(engine, conv, member) for _, conv in found if (member := conv.part(user)) is not None]


def _part_of(engine: Readable, conv: Conv, member: Member) -> Part:
    """What the member may read."""
    spans = tuple((first, last) for first, last in member.spans)
    first, last = 0, conv.lsn
    if spans:
        if spans[0][0] > 1:
            first = next((lsn for _, lsn in engine.state.messages(conv, spans[0][0], spans[0][0])), 0)
        if spans[-1][1] < conv.head:
            last = next((lsn for _, lsn in engine.state.messages(conv, spans[-1][1], spans[-1][1])), last)
    return Part(conv.name, first, last, spans)
