"""The ledger's connection: batches are committed over it, if this node is still one, and it is made anew where it was lost."""

from __future__ import annotations

import logging
import time
from typing import Final

import psycopg

from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.nodes import Me
from mqtt_im.protocol.errors import InDoubt

from . import tables
from .errors import ERRORS, Fenced, Lost
from .node import Fence
from .wire import BEGIN, COMMIT, PLANNING, ROLLBACK, Link, Statement, Step
from .writes import guarded

ASK_S: Final = 5.0
"""So long it is tried to find out whether a batch was committed with which the connection was lost."""
AGAIN_S: Final = 0.2
PATIENCE_S: Final = 8.0
"""So long an answer may take. The locks of a node that stands still are taken back before."""
_PROBE: Final = Statement("UPDATE node SET batch = batch WHERE incarnation = $1 RETURNING 1", "i")

logger = logging.getLogger(__name__)


class Line:
    """Raises what `Link` raises."""

    def __init__(self, database: Database, connection: Connection, me: Me) -> None:
        """The connection is one that `connect` has made, and this one's from now on."""
        self._database = database
        self.link = Link(connection)
        self.fence = Fence(me)
        self._full = False
        """The database had no room for a batch."""

    def renew(self) -> Link:
        """There is a new connection."""
        self.link = Link(connect(self._database))
        return self.link

    def send(self, found: list[Step]) -> None:
        """These are done and committed, if this node is still one; `link` may be another one afterwards.

        Raises `InDoubt` where that can't be found out.
        """
        try:
            self.link.run(*guarded(found, self.fence.next()), Step(COMMIT))
        except Lost as error:
            if not self._was_committed(error):
                raise
        except psycopg.errors.DivisionByZero as error:
            raise Fenced("this node was declared dead by another one") from error
        except psycopg.errors.DiskFull:
            self._full = True
            raise

    def _was_committed(self, error: Lost) -> bool:
        """Whether the batch with which the connection was lost is there. The node's row, which it had locked, says so.

        Raises `InDoubt` where nobody could be asked, or the row is gone, since this node was declared dead meanwhile.
        """
        deadline = time.monotonic() + ASK_S
        while time.monotonic() < deadline:
            link = None
            try:
                link = Link(connect(self._database))
                there = self.fence.committed(link)
            except ERRORS as why:
                if link is not None:
                    link.close()
                if isinstance(why, Fenced):
                    raise InDoubt(f"{error}, and {why}; its last batch may be there or not") from why
                time.sleep(AGAIN_S)
                continue
            self.link = link
            logger.warning("store: %s; its last batch %s", error, "is there" if there else "is not there")
            return there
        raise InDoubt(f"{error}; its last batch may be there or not")

    def probe(self) -> None:
        """A batch could be committed. Raises what would keep one from it."""
        self.link.roll_back()
        self.fence.begin()
        if not self.link.one(_PROBE, self.fence.server):
            raise Fenced("this node was declared dead by another one")
        if self._full:  # something small always fits in somewhere
            self.link.run(Step(BEGIN), Step(tables.ROOM), Step(ROLLBACK))
            self._full = False


def connect(database: Database) -> Connection:
    """A connection for batches."""
    connection = database.connect("ledger", patience_s=PATIENCE_S)
    connection.execute(PLANNING)
    return connection
