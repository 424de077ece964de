"""How much there is in a body: what a text of 64 KB can hold of lists and maps costs far more than its bytes."""

from __future__ import annotations

from typing import Any, Final

MAX_PARTS: Final = 10_000
"""Lists, maps and binaries of one body."""
_PARTS: Final = frozenset((list, dict, bytes))
_NOT_PARTS: Final = frozenset((str, int, float, bool, type(None)))


def too_many_parts(value: Any) -> bool:
    """Whether a decoded body has more than `MAX_PARTS` of them. Takes no longer than that many take."""
    left, stack = MAX_PARTS, [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind not in _PARTS:
            continue
        left -= 1
        if left < 0:
            return True
        if kind is dict:
            item = item.values()
        elif kind is bytes:
            continue
        if not set(map(type, item)) <= _NOT_PARTS:
            if len(item) > left + len(stack) and sum(type(inner) in _PARTS for inner in item) > left:
                return True
            stack.extend(inner for inner in item if type(inner) in _PARTS)
    return False


def parts_at_most(text: bytes) -> int:
    """No fewer than the lists and maps that a JSON text has; brackets in its strings count too."""
    return text.count(b"[") + text.count(b"{")
