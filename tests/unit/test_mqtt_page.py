"""docs/mqtt.md names every statement of MQTT 3.1.1, and tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.unit.transport.test_v5_connect import REFUSED, VIOLATIONS

ROOT = Path(__file__).parents[2]
FOLDERS = {"system": ROOT / "tests", "mqtt": ROOT / "tests" / "unit"}
PAGE = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")

# How many statements each section has in appendix B of the standard.
STATEMENTS = {
    "1.5.3": 3, "2.2.2": 2, "2.3.1": 7,
    "3.1.0": 2, "3.1.2": 24, "3.1.3": 11, "3.1.4": 5, "3.2.0": 1, "3.2.2": 6,
    "3.3.1": 12, "3.3.2": 3, "3.3.4": 1, "3.3.5": 2, "3.6.1": 1,
    "3.8.1": 1, "3.8.3": 4, "3.8.4": 6, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6,
    "3.12.4": 1, "3.14.1": 1, "3.14.4": 3,
    "4.1.0": 2, "4.3.1": 1, "4.3.2": 2, "4.3.3": 2, "4.4.0": 1, "4.5.0": 2, "4.6.0": 6,
    "4.7.1": 3, "4.7.2": 1, "4.7.3": 4, "4.8.0": 2,
    "6.0.0": 4, "7.0.0": 2, "7.1.1": 1, "7.1.2": 1,
}  # fmt: skip

CASES = {
    "test_a_violation_is_answered_with_its_code": frozenset(VIOLATIONS),
    "test_a_refused_connect_says_why": frozenset(REFUSED),
}
"""Tests of which a row names the case that is its own."""


def rows() -> list[tuple[str, str, str]]:
    """Statement, what it demands, the cell of its tests."""
    return re.findall(r"^\| (\d+\.\d+\.\d+-\d+) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)


def rows5() -> list[tuple[str, str, str]]:
    """The same of MQTT 5."""
    return re.findall(r"^\| 5:(\d+\.\d+\.\d+-\d+) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)


@cache
def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_statement_has_its_row() -> None:
    wanted = [f"{section}-{number}" for section, count in STATEMENTS.items() for number in range(1, count + 1)]
    assert [statement for statement, _, _ in rows()] == wanted


def test_every_statement_is_held_by_tests_that_exist() -> None:
    for statement, demand, cell in rows():
        names = re.findall(r"`([^`]+)::(\w+)`", cell)
        if cell == "–":
            assert demand.startswith("client: ") or statement == "7.0.0-1", statement
            continue
        assert names, statement
        for file, name in names:
            folder = FOLDERS.get(file.partition("/")[0], ROOT / "tests" / "unit" / "transport")
            assert name in names_in(folder / file), f"{statement}: {file} has no {name}"


def test_statements_of_mqtt_5_are_held_by_tests_that_exist() -> None:
    found = rows5()
    assert len(found) > 100
    assert len({statement for statement, _, _ in found}) == len(found)
    for statement, _, cell in found:
        named = re.findall(r"`([^`]+)::(\w+)(?:\[([^`]+)\])?`", cell)
        assert len(named) == len(cell.split("<br>")), statement
        for file, name, case in named:
            folder = FOLDERS.get(file.partition("/")[0], ROOT / "tests" / "unit" / "transport")
            assert name in names_in(folder / file), f"{statement}: {file} has no {name}"
            assert not case or case in CASES[name], f"{statement}: {name} has no case {case}"


def test_a_test_of_many_cases_is_named_with_one() -> None:
    """Else it could stand behind anything."""
    for statement, _, cell in rows5():
        for name in CASES:
            assert f"::{name}`" not in cell or statement in ("3.2.2-8", "4.13.1-1"), statement  # which speak of every case
