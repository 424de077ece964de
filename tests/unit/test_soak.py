"""The judgement of `python -m tests.soak`: what has grown, and what only goes up and down."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.samples import Sample, grown


def series(**figures: list[Any]) -> list[Sample]:
    flat = Sample(0.0, 100.0, 50, 7, 5, 20, 0, 0)
    length = len(next(iter(figures.values())))
    return [flat._replace(**{name: values[index] for name, values in figures.items()}) for index in range(length)]


@pytest.mark.parametrize(
    "figures",
    [
        {"rss_mib": [100.0, 108.0, 104.0, 101.0, 107.0, 103.0, 108.0, 109.0]},
        {"fds": [40, 60, 50, 55, 40, 62, 58, 45]},
        {"tasks": [7, 7, 20, 7, 9, 7, 30, 8]},
    ],
)
def test_noise_is_no_growth(figures: dict[str, list[float]]) -> None:
    assert grown(series(**figures)) == []


@pytest.mark.parametrize(
    "figures",
    [
        {"rss_mib": [100.0, 104.0, 108.0, 112.0, 116.0, 120.0, 124.0, 128.0]},
        {"fds": [50, 55, 60, 65, 70, 75, 80, 85]},
        {"tasks": [7, 10, 15, 20, 25, 30, 35, 40]},
        {"threads": [5, 5, 6, 6, 7, 7, 8, 8]},
    ],
)
def test_growth_is_told(figures: dict[str, list[float]]) -> None:
    [line] = grown(series(**figures))
    assert line.startswith(next(iter(figures)))
