"""What the server takes, as it said last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from .entries import OVERHEAD, Entry
from .inbox import is_position

DEFAULT_PACKET: Final = 64 * 1024
"""What may be sent before any limits are known (bytes); larger changes wait for `welcome`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`limits` of a `welcome`; 0: not known."""

    packet: int = 0
    body: int = 0
    page: int = 0
    window: int = 0


UNKNOWN: Final = Limits()


def told(value: object, former: Limits) -> Limits:
    """The limits of a `welcome`; what makes no sense stays as it was."""
    if not isinstance(value, dict):
        return former
    found: dict[str, Any] = {name: value[name] for name in Limits.__slots__ if is_position(value.get(name))}
    return replace(former, **found)


def over(limits: Limits, entry: Entry, up: str) -> str | None:
    """Why the server would not take a change on the topic `up`; None where it would, or nothing is known."""
    if limits.body and entry.raw is not None and len(entry.raw) > limits.body:
        return f"{len(entry.raw)} bytes, of at most {limits.body}"
    if limits.packet and entry.size > limits.packet - len(up) - OVERHEAD:
        return f"{entry.size} bytes with everything, of at most {limits.packet}"
    return None
