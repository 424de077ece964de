"""Who gets something with a batch: what other nodes are told of it, and what its records may forget once they are told."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

from mqtt_im.core.model import Conv, former_readers
from mqtt_im.core.records import AMENDMENTS, Act, GroupChange, Message
from mqtt_im.core.rules.common import own_pos
from mqtt_im.store.commits import Commit
from mqtt_im.store.interface import RECEIPT_MEMBERS

_AMENDMENTS: Final = frozenset[type](AMENDMENTS)
MANY: Final = 100
"""A record with more recipients than that is shortened in memory once it is committed."""

Wake = Callable[[list[str], list[str], list[tuple[str, int]]], None]


class Addressing:
    """Of one batch after the other."""

    def __init__(self, wake: Wake) -> None:
        """`wake` is told, after each commit, the users and the groups of whom other nodes may have devices.

        And users with `pos` of what is void now, without a record that says so.
        """
        self._wake = wake
        self._long: list[Act] = []
        self._users: dict[str, None] = {}
        self._groups: dict[str, None] = {}
        """Who gets something with the batch; of large groups only their names."""

    def note(self, commit: Commit, record: Act, conv: Conv, names: Sequence[str], online: Container[str]) -> None:
        """These have got something by a record, which was just applied."""
        if len(names) > MANY:
            self._long.append(record)
        if conv.large:
            commit.members = conv.size
            self._groups[record.conv] = None
        elif type(record) in _AMENDMENTS and isinstance(record, AMENDMENTS):
            # They are told nothing, on no node, and may still have in hand what was before.
            former = former_readers(conv, record.seq)
            commit.former = [name for name in former if name in online]
            self._users.update(dict.fromkeys(former))
        if len(names) > RECEIPT_MEMBERS:
            self._groups[record.conv] = None
        else:
            self._users.update(dict.fromkeys(names))

    def tell(self, replaced: list[tuple[str, int]]) -> None:
        """The batch is committed, and has made these items void without a record that says so."""
        if self._users or self._groups or replaced:
            self._wake(list(self._users), list(self._groups), replaced)
        for record in self._long:
            shorten(record)

    def forget(self) -> None:
        """The batch is over."""
        self._long.clear()
        self._users.clear()
        self._groups.clear()


def shorten(record: Act) -> None:
    """Whoever is told of the record holds it for a while, and needs none of the numbers but its author's own."""
    record.pos = [own_pos(record, record.by)] if isinstance(record, Message) else []
    if isinstance(record, GroupChange):
        record.users = []
