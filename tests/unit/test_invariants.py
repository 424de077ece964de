"""docs/invariants.md: what is cited stands there, and what stands there is tested."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATED = set(re.findall(r"^\*\*(INV-\d+)\.", (ROOT / "docs/invariants.md").read_text(), re.MULTILINE))


def cited(folder: str, pattern: str = "*.py") -> dict[str, set[str]]:
    """Which invariants are cited, and by which files."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / folder).rglob(pattern):
        for name in re.findall(r"INV-\d+", file.read_text()):
            found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


def test_they_are_numbered_without_a_gap() -> None:
    assert {f"INV-{number}" for number in range(1, len(STATED) + 1)} == STATED


def test_every_invariant_that_is_cited_is_stated() -> None:
    for folder, pattern in (("mqtt_im", "*.py"), ("tests", "*.py"), ("docs", "*.md")):
        unknown = {name: files for name, files in cited(folder, pattern).items() if name not in STATED}
        assert not unknown


def test_every_invariant_is_cited_by_a_test() -> None:
    assert not STATED - cited("tests").keys()
