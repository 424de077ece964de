"""Measuring things in turns, so that whatever else the machine does meets all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bench.meter import Usage


class Cost(NamedTuple):
    """What one message or request took, over all turns."""

    cpu_s: float
    wall_s: float
    number: int
    busy: float
    """Share of the wall time in which the generator worked."""


async def turns(
    names: Sequence[str], run: Callable[[str, float], Awaitable[tuple[Usage, int]]], seconds: float, turn_s: float = 1.0
) -> dict[str, Cost]:
    """Each runs for about `seconds` in all; `run` does a turn of one and returns what it took and how many there were."""
    found: dict[str, list[tuple[Usage, int]]] = {name: [] for name in names}
    for name in names:
        await run(name, turn_s)  # warm
    for _ in range(max(1, round(seconds / turn_s))):
        for name in names:
            found[name].append(await run(name, turn_s))
    return {name: _cost(parts) for name, parts in found.items()}


def _cost(parts: Sequence[tuple[Usage, int]]) -> Cost:
    number = sum(done for _, done in parts)
    wall = sum(used.wall_s for used, _ in parts)
    return Cost(
        sum(used.cpu_s for used, _ in parts) / number,
        wall / number,
        number,
        sum(used.generator_cpu_s for used, _ in parts) / wall,
    )
