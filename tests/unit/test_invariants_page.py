"""docs/invariants.md says of each invariant which files hold it and which tests; all of them exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
STATED = re.findall(r"^\*\*(INV-\d+)\.", PAGE, re.MULTILINE)
ROWS: dict[str, tuple[str, str]] = {
    name: (files, tests) for name, files, tests in re.findall(r"^\| (INV-\d+) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
}


def names_in(file: Path) -> set[str]:
    """Functions, and what is assigned, such as the test case of a state machine."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_invariant_has_its_row() -> None:
    assert list(ROWS) == STATED


@pytest.mark.parametrize("name", ROWS)
def test_it_is_held_by_files_and_tests_that_exist(name: str) -> None:
    files, tests = ROWS[name]
    paths = re.findall(r"`([a-z_/]+/(?:\w+\.py)?)`", files)
    assert paths and all((ROOT / "mqtt_im" / path).exists() for path in paths), files
    cited = re.findall(r"`([^`]+)::(\w+)`", tests)
    assert cited
    for file, test in cited:
        assert test in names_in(ROOT / "tests" / file), f"{name}: {file} has no {test}"
