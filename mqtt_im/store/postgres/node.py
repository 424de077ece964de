"""The store's side of this node's row: the fence, and what other servers may have offered before this one began."""

from __future__ import annotations

from typing import Final

from mqtt_im.postgres.nodes import Me

from .errors import Fenced
from .wire import Link, Statement, Step

_FENCE: Final = Statement(
    "WITH mine AS (UPDATE node SET batch = $1 WHERE incarnation = $2 RETURNING 1) SELECT 1 / count(*) FROM mine", "ii"
)
"""Divides by zero, and so ends the transaction, where this node was declared dead."""
_NO_FENCE: Final = Statement("SELECT")
_MINE: Final = Statement("SELECT batch FROM node WHERE incarnation = $1 FOR UPDATE", "i")
_EXPOSED: Final = Statement(
    "SELECT u.name, d.device, d.server FROM device d JOIN im_user u USING (uid)"
    " WHERE d.exposed AND NOT EXISTS (SELECT FROM node n WHERE n.incarnation = d.server AND n.incarnation <> $1)",
    "i",
)


MAX_INHERITED: Final = 100_000
"""Devices of which that is known by itself."""


class Inherited:
    """Up to which log row a device may have been offered something by a server that had it before this one."""

    def __init__(self) -> None:
        self._upto: dict[tuple[str, str], int] = {}
        self._all = 0

    def note(self, device: tuple[str, str], lsn: int) -> None:
        """It has come with things in flight, of which none is newer than this row."""
        if len(self._upto) >= MAX_INHERITED:  # rather too much than too little
            self._all = max(self._all, lsn, *self._upto.values())
            self._upto.clear()
        self._upto[device] = max(lsn, self._upto.get(device, 0))

    def settle(self, device: tuple[str, str]) -> None:
        """It has come with nothing in flight."""
        self._upto.pop(device, None)

    def upto(self, device: tuple[str, str]) -> int:
        """See the class; 0 where nothing was."""
        return max(self._all, self._upto.get(device, 0))


class Fence:
    """Numbers the batches of this node, and asks whether it is still one."""

    def __init__(self, me: Me) -> None:
        self._me = me
        self._incarnation = 0
        self.batch = 0
        """The newest one that was tried."""

    @property
    def server(self) -> int:
        """Names this run of this node, and no other."""
        return self._me.incarnation

    def next(self) -> Step:
        """The last step of the next batch; a command, which is no node, has nothing to ask."""
        if not self._me.incarnation:
            return Step(_NO_FENCE)
        if self._incarnation != self._me.incarnation:
            self._incarnation, self.batch = self._me.incarnation, 0
        self.batch += 1
        return Step(_FENCE, (self.batch, self._incarnation))

    def committed(self, link: Link) -> int:
        """The last batch that was committed; waits for one that is on its way. Raises `Fenced`."""
        rows = link.one(_MINE, self._me.incarnation)
        if not rows:
            raise Fenced("this node was declared dead by another one")
        batch: int = rows[0][0]
        return batch

    def cut_off(self, link: Link) -> dict[tuple[str, str], int]:
        """User and device of all to which a server that is no more may have offered what they have not acknowledged.

        With which one that was.
        """
        return {(user, device): server for user, device, server in link.one(_EXPOSED, self._me.incarnation)}
