"""The numbers that rows of the log have given out: each must be the one after the one before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final

from mqtt_im.core.records import MESSAGES, Act, AnyRecord, Gone, GroupChange
from mqtt_im.store.tools.report import Report

_SEQS: Final = """
    SELECT c.name, m.seq, m.lsn, c.head FROM message m CROSS JOIN conv c ON c.cid = m.cid ORDER BY m.cid, m.seq"""
_POSITIONS: Final = """
    SELECT u.name, i.pos, abs(i.lsn), u.head FROM item i CROSS JOIN user u ON u.uid = i.uid ORDER BY i.uid, i.pos"""


class Numbers:
    """Counts along: what each number must be, given those before it."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.lsn = 0
        """The row that was read last."""
        self.ids = 0
        """How many different ids there are, if each made one thing."""
        self._last_id: tuple[str, str, str] | None = None
        self._whole = False
        self._ts = 0

    def begin(self, base: int, connection: sqlite3.Connection) -> None:
        """Up to row `base` rows may be missing, and from here on none; so far the projections have these numbers."""
        messages, items = self.report.messages, self.report.items
        for what, query, given in (("seq", _SEQS, messages), ("pos", _POSITIONS, items)):
            found = self._ascend(what, connection.execute(query))
            if found < given:
                self.report.add(f"base: {given - found} of the numbers up to row {base} were given out twice ({what})")
        self._whole = True
        self.lsn = base

    def _ascend(self, what: str, rows: Iterable[tuple[str, int, int, int]]) -> int:
        """Numbers and log rows grow alike, and no further than the base says; how many numbers there are."""
        count, last_name, last_lsn, last = 0, "", 0, 0
        for name, number, lsn, head in rows:
            count += 1
            if name != last_name:
                last_name, last_lsn, last = name, 0, 0
            if lsn < last_lsn:
                self.report.add(f"log row {lsn}: {what} {number} of {name}: comes before {last} in the log")
            if number > head:
                self.report.add(f"base: {name} has numbers up to {head}, the log has {number}")
            last_lsn, last = lsn, number
        return count

    def row(self, lsn: int, record: AnyRecord) -> None:
        """The next row of the log."""
        if self._whole and lsn != self.lsn + 1:
            self.report.add(f"log: row {lsn} follows row {self.lsn}")
        if record.ts < self._ts:
            self.report.add(f"log row {lsn}: its time lies before that of the row before it")
        self.lsn, self._ts = lsn, max(self._ts, record.ts)
        self.report.rows += 1
        act = record.act if isinstance(record, Gone) else record
        if isinstance(act, Act) and act.id is not None:
            used = (act.by, act.id, act.conv)
            # A change to a group may take several rows: a leaving owner, and who takes over.
            if used != self._last_id or not isinstance(act, GroupChange):
                self.ids += 1
            self._last_id = used

    def early(self, lsn: int, record: Act, names: list[str]) -> None:
        """The numbers that a row up to the base gave out, to the inboxes of `names`; what they must be, `begin` finds out."""
        if isinstance(record, MESSAGES) and record.pos:
            self.report.messages += 1
        self.report.items += self._addressed(lsn, record, names)

    def act(self, lsn: int, record: Act, names: list[str], head: int, head_of: Callable[[str], int]) -> None:
        """The numbers that the row gave out, where its conversation and the inboxes of `names` had come so far before it."""
        if isinstance(record, GroupChange) and not record.pos:
            pass
        elif isinstance(record, MESSAGES):
            self.report.messages += 1
            if record.seq != head + 1:
                self.report.add(f"log row {lsn}: seq {record.seq} of {record.conv}: {head + 1} was next")
        elif record.seq > head:
            self.report.add(f"log row {lsn}: speaks of message {record.seq} of {record.conv}, which was not sent yet")
        self.report.items += self._addressed(lsn, record, names)
        for name, pos in zip(names, record.pos, strict=False):
            if (before := head_of(name)) + 1 != pos:
                self.report.add(f"log row {lsn}: pos {pos} of {name}: {before + 1} was next")

    def _addressed(self, lsn: int, record: Act, names: list[Any]) -> int:
        if len(names) != len(record.pos):
            self.report.add(f"log row {lsn}: {len(record.pos)} items for {len(names)} recipients")
        return min(len(names), len(record.pos))
