"""Faults of its own that a server has met, as its log tells them."""

from __future__ import annotations

import re

# A line of the log begins with the time of day; a traceback has several lines, none of which does.
_TRACEBACK = re.compile(r"^.*\n(?:.*Traceback .*\n)(?:(?!\d\d:\d\d:).*\n?)*", re.MULTILINE)


def faults(log: str) -> str:
    """Every traceback in `log` with the line that it belongs to, and nothing else: empty where there is none."""
    return "\n".join(_TRACEBACK.findall(log)) if "Traceback" in log else ""


def assert_no_fault(log: str) -> None:
    """Nothing in `log` is a fault of the server itself. The error shows these alone: a whole log hides them."""
    assert "Traceback" not in log, faults(log) or log
