"""The store's side of this node's row: the fence, and what other servers may have offered before this one began."""

from __future__ import annotations

from typing import Final

from mqtt_im.postgres.nodes import Me

from .errors import Fenced
from .wire import BEGIN, COMMIT, Link, Statement, Step

FENCE: Final = (
    "mine AS (UPDATE node SET batch = ${0} WHERE incarnation = ${1} AND batch < ${0} RETURNING 1) SELECT 1 / count(*) FROM mine"
)
"""Divides by zero, and so ends the transaction, where this node was declared dead, or has given the batch up."""
_FENCE: Final = Statement(f"WITH {FENCE.format(1, 2)}", "ii")
_NO_FENCE: Final = Statement("SELECT")
_MINE: Final = Statement("SELECT batch FROM node WHERE incarnation = $1 FOR UPDATE", "i")
_GIVE_UP: Final = Statement("UPDATE node SET batch = $1 WHERE incarnation = $2", "ii")
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
        self.server = me.incarnation
        """Names the run of this node that does the batch, and no other; a command, which is no node, has 0."""
        self._batch = 0
        """The newest one that was tried."""

    def begin(self) -> None:
        """A batch begins. It is this run's to its end: what was decided before this node was declared dead is not kept after."""
        if self.server != self._me.incarnation:
            self.server, self._batch = self._me.incarnation, 0

    def next(self) -> Step:
        """The last step of the batch; a command has nothing to ask."""
        if not self.server:
            return Step(_NO_FENCE)
        self._batch += 1
        return Step(_FENCE, (self._batch, self.server))

    def committed(self, link: Link) -> bool:
        """Whether the last batch was committed; waits for it where it is on its way, and where it is not, it will never be.

        Raises `Fenced`.
        """
        rows = link.run(Step(BEGIN), Step(_MINE, (self.server,)))[1].rows
        if not rows:
            raise Fenced("this node was declared dead by another one")
        if rows[0][0] == self._batch:
            link.roll_back()
            return True
        # A number of its own, so that one who asks again does not take this for the batch.
        link.run(Step(_GIVE_UP, (self._batch + 1, self.server)), Step(COMMIT))
        self._batch += 1
        return False

    def cut_off(self, link: Link) -> dict[tuple[str, str], int]:
        """User and device of all to which a server that is no more may have offered what they have not acknowledged.

        With which one that was.
        """
        return {(user, device): server for user, device, server in link.one(_EXPOSED, self.server)}
