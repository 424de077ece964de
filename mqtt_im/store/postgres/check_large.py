"""What `store check` holds against each other of large groups: what was told, and what stands in the inboxes of who was a member.

A member has each thing that was told while it was one, once and in its order, up to what `member.pulled` says; who has left has
all of it. So the members that the log says have, over all their groups, as many such items as were told them.
"""

from __future__ import annotations

from typing import Any, Final

from mqtt_im.core.records import Act, GroupChange, Reported
from mqtt_im.postgres.connecting import Connection
from mqtt_im.store.tools.report import Report

from .retention import Groups

_TOLD: Final = "SELECT lsn, cid, act FROM told WHERE lsn = ANY (%s)"
_PULLED: Final = """
    SELECT m.cid, u.name, m.pulled FROM member m JOIN grp g USING (cid) JOIN im_user u USING (uid) WHERE g.large AND m.active"""
LARGE_WRONG: Final = (
    (
        "SELECT cid, act, lsn FROM told t WHERE NOT EXISTS (SELECT FROM log l WHERE l.lsn = t.lsn AND l.cid = t.cid)",
        "conversation {}: told its members, as number {}, log row {}, which is not there",
    ),
    (
        "SELECT g.name, g.acts, max(t.act) FROM told t JOIN grp g USING (cid) GROUP BY g.cid HAVING max(t.act) > g.acts",
        "group {}: has told {} by its own row, and {} in table told",
    ),
    (
        """
        SELECT g.name, u.name, m.pulled, g.acts FROM member m JOIN grp g USING (cid) JOIN im_user u USING (uid)
        WHERE m.pulled > g.acts""",
        "group {}: {} has taken {} of {}",
    ),
)
"""See `references.WRONG`."""


class Large:
    """Counts what was told, and what has come."""

    def __init__(self, connection: Connection, report: Report) -> None:
        self._connection = connection
        self._report = report
        self._came: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._pulled: dict[tuple[int, str], int] = {(cid, name): at for cid, name, at in self._rows(_PULLED)}

    def told(self, lsns: list[int]) -> dict[int, tuple[int, int]]:
        """Those of these log rows that were told so: group and number."""
        return {lsn: (cid, act) for lsn, cid, act in self._rows(_TOLD, lsns)}

    def inbox(self, user: str, items: list[tuple[int, int]], told: dict[int, tuple[int, int]]) -> None:
        """`(pos, log row)` of what an inbox holds; `told` are those that were told so."""
        newest: dict[int, int] = {}
        other = 0
        for pos, lsn in items:
            if lsn in told:
                cid, act = told[lsn]
                if act <= newest.get(cid, 0):
                    self._report.add(f"inbox of {user}: item {pos} is log row {lsn}, which was told before what stands before it")
                newest[cid] = act
                self._came[user] = self._came.get(user, 0) + 1
            else:
                if lsn <= other:
                    self._report.add(f"inbox of {user}: item {pos} is log row {lsn}, after row {other}")
                other = lsn

    def members(self, groups: Groups, record: Act, cid: int, act: int) -> list[str]:
        """Who has the item at once, which is told in a log row whose change to the group is made."""
        for name in groups.told(record):
            if self._pulled.get((cid, name), act) >= act:
                self._due[name] = self._due.get(name, 0) + 1
        return self.at_once(record)

    @staticmethod
    def at_once(record: Act) -> list[str]:
        """Who has the item of what was told so at once."""
        if isinstance(record, GroupChange):
            return record.users
        return [record.by] if record.pos and not isinstance(record, Reported) else []

    def end(self) -> None:
        """Everything was seen."""
        for name in sorted({*self._due, *self._came}):
            due, came = self._due.get(name, 0), self._came.get(name, 0)
            if due != came:
                self._report.add(f"inbox of {name}: has {came} items of large groups, and is to have {due}")

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), values, binary=True).fetchall()
