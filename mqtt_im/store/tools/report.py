"""What `store check` tells."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_PROBLEMS: Final = 100
"""Problems that are told; a broken store would have no end of them."""


class Report(msgspec.Struct):
    """What was read, and what is wrong with it; `problems` is empty where every promise holds."""

    rows: int = 0
    messages: int = 0
    items: int = 0
    conversations: int = 0
    inboxes: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note a problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
