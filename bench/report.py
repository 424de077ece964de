"""Figures, targets, and the table they make."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import EVERY_SERVER, MOSQUITTO, OURS


@dataclass(frozen=True, slots=True)
class Target:
    """What our figure must reach, and what it aims at; limits are in the figure's unit or a multiple of mosquitto's."""

    must: float
    aim: float | None = None
    more_is_better: bool = False
    over: str = ""
    """"" = absolute; "×" = ratio to the reference; "+" = difference from it."""

    def describe(self, limit: float | None) -> str:
        """One limit, as the table shows it."""
        if limit is None:
            return ""
        sign = "≥" if self.more_is_better else "≤"
        number = f"{limit:,g}"
        return f"{sign} {number}×" if self.over == "×" else f"{sign} ref + {number}" if self.over == "+" else f"{sign} {number}"

    def holds(self, limit: float, ours: float, reference: float | None) -> bool | None:
        """Whether our figure keeps the limit; None where the reference is missing."""
        if self.over and reference is None:
            return None
        base = reference or 0.0
        bound = limit * base if self.over == "×" else limit + base if self.over == "+" else limit
        return ours >= bound if self.more_is_better else ours <= bound


@dataclass(slots=True)
class Row:
    """One figure of every server that was measured."""

    what: str
    unit: str
    values: dict[str, float] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    reference: str = MOSQUITTO
    """The column that ratios are taken against."""

    def verdicts(self) -> str:
        """For every target: aim, met or missed."""
        ours = self.values.get(OURS)
        if ours is None:
            return ""
        words = []
        for target in self.targets:
            met = target.holds(target.must, ours, self.values.get(self.reference))
            reached = target.aim is not None and target.holds(target.aim, ours, self.values.get(self.reference))
            words.append("?" if met is None else "aim" if reached else "met" if met else "MISSED")
        return ", ".join(words)

    def ratio(self) -> str:
        """Ours over the reference."""
        ours, reference = self.values.get(OURS), self.values.get(self.reference)
        return f"{ours / reference:.2f}" if ours is not None and reference else ""


def tell(what: str) -> None:
    """Whoever waits sees how far a scenario has come."""
    print(f"  {what}", file=sys.stderr, flush=True)


def medians(rounds: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of several rounds as one: the median of each figure, since other work on the machine moves single ones."""
    merged: dict[tuple[str, str], list[Row]] = {}
    for rows in rounds:
        for row in rows:
            merged.setdefault((row.what, row.unit), []).append(row)
    result = []
    for same in merged.values():
        names = dict.fromkeys(name for row in same for name in row.values)
        values = {name: statistics.median(row.values[name] for row in same if name in row.values) for name in names}
        result.append(Row(same[0].what, same[0].unit, values, same[0].targets, same[0].reference))
    return result


def figure(value: float) -> str:
    """A number with about three digits that mean something."""
    magnitude = abs(value)
    return f"{value:,.0f}" if magnitude >= 100 else f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, columns aligned for a terminal."""
    rows = list(rows)
    extra = sorted({name for row in rows for name in row.values} - set(EVERY_SERVER))
    names = [name for name in (*EVERY_SERVER, *extra) if any(name in row.values for row in rows)]
    lines: list[Sequence[str]] = [("what", "unit", *names, "ratio", "must", "aim", "verdict")]
    lines += (_cells(row, names) for row in rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _cells(row: Row, names: Sequence[str]) -> Sequence[str]:
    return (
        row.what,
        row.unit,
        *(figure(row.values[name]) if name in row.values else "" for name in names),
        row.ratio(),
        ", ".join(target.describe(target.must) for target in row.targets),
        ", ".join(target.describe(target.aim) for target in row.targets if target.aim is not None),
        row.verdicts(),
    )


def save(rows: Iterable[Row], path: Path) -> None:
    """The rows as JSON."""
    path.write_text(json.dumps([{"what": row.what, "unit": row.unit, "values": row.values} for row in rows], indent=1) + "\n")
