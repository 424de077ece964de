"""docs/architecture.md says of all that stays in memory who has it and which test holds its bound; all of them exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_invariants_page import names_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PART = PAGE.partition("## What stays in memory")[2].partition("\n## ")[0]
ROW = re.compile(r"^\| (?!what \|)([a-z][^|]*) \| ([^|]*) \| .* \| ([^|]*) \|$", re.MULTILINE)
ROWS: dict[str, tuple[str, str]] = {what: (owner, test) for what, owner, test in ROW.findall(PART)}


def test_there_are_rows() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize("what", ROWS)
def test_its_owner_and_its_test_exist(what: str) -> None:
    owner, test = ROWS[what]
    files = re.findall(r"`([a-z_/]+\.py)`", owner)
    names = re.findall(r"`(\w+)`", owner)
    assert files, owner
    texts = [(ROOT / "mqtt_im" / file).read_text(encoding="utf-8") for file in files]
    assert all(re.search(rf"\b{name}\b", texts[0]) for name in names), owner
    for file, _, name in re.findall(r"`([a-z_/]+\.py)(::(\w+))?`", test):
        found = names_in(ROOT / "tests" / file)
        assert not name or name in found, f"{file} has no {name}"
    assert "`" in test


@pytest.mark.parametrize("folder", ["store", "bridge", "search", "accounts"])
def test_whatever_is_a_share_of_the_memory_is_told(folder: str) -> None:
    """A module that asks for a share of the memory has a row."""
    told = {name for owner, _ in ROWS.values() for name in re.findall(r"`([a-z_/]+\.py)`", owner)}
    asking = {
        path.relative_to(ROOT / "mqtt_im").as_posix()
        for path in (ROOT / "mqtt_im" / folder).rglob("*.py")
        if re.search(r"ounds(\(\))?\)?\.of\([A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert asking
    assert asking - told - WORKERS == set()


WORKERS = {
    "bridge/service.py",  # hands shares to their owners
    "search/index.py",  # of what is under way in one step
    "store/sqlite/flusher.py",  # writes the generations
    "store/common/rendering.py",  # has `Rendered` made
}
"""They ask for a share, and keep nothing by it."""
