"""A run as a picture: how many a second, and how long each took, over time. SVG, made by hand: it is a few lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from mqtt_im.load.figures import percentile
from mqtt_im.load.plan import PERCENTILES, Outcome

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT = 80, 740
_UPPER, _LOWER = (70, 210), (260, 410)
"""Top and bottom of the two panels."""
_COLOURS: Final = {"p50": "#0a7d5a", "p99": "#c2571a", "p99.9": "#8b1e3f"}
_TICKS: Final = 4


def svg(title: str, outcome: Outcome) -> str:
    """The picture. Where nothing went on over time, the second panel has the latencies in order."""
    over_time = len(outcome.moments) > 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(_LEFT, 24, title, "start", 15),
        _text(_LEFT, 44, _summary(outcome), "start"),
        *(_over_time(outcome) if over_time else _in_order(outcome)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _summary(outcome: Outcome) -> str:
    latency = outcome.latency_ms()
    figures = ", ".join(f"{name} {latency[name]:,.2f} ms" for name, _ in PERCENTILES)
    return f"{outcome.count:,} {outcome.unit}, {outcome.per_second:,.0f} a second · {outcome.latency_of}: {figures}"


def _over_time(outcome: Outcome) -> Iterator[str]:
    pairs = list(zip(outcome.moments, outcome.moments[1:], strict=False))
    end = outcome.moments[-1].at_s
    rates = [(now.at_s, (now.count - before.count) / max(now.at_s - before.at_s, 1e-6)) for before, now in pairs]
    yield from _panel(_UPPER, f"{outcome.unit} a second", _linear(max(rate for _, rate in rates)), end)
    yield _line(_UPPER, _linear(max(rate for _, rate in rates)), end, rates, "#1f5fa8")
    samples = [(now.at_s, sorted(outcome.latencies[before.latencies : now.latencies])) for before, now in pairs]
    lines = {
        name: [(at, percentile(found, share) * 1000) for at, found in samples if found]
        for name, share in PERCENTILES
        if len(outcome.latencies) * (1 - share) >= 1 or name == "p50"
    }
    values = [value for points in lines.values() for _, value in points]
    scale = _logarithmic(values)
    yield from _panel(_LOWER, f"ms, {outcome.latency_of}", scale, end)
    for column, (name, points) in enumerate(lines.items()):
        yield _line(_LOWER, scale, end, points, _COLOURS[name])
        yield _text(_LEFT + 20 + 70 * column, _LOWER[1] + 40, f"— {name}", "start", 12, _COLOURS[name])
    yield _text(_RIGHT, _LOWER[1] + 40, "seconds", "end")


def _in_order(outcome: Outcome) -> Iterator[str]:
    ordered = sorted(outcome.latencies)
    points = [(share, percentile(ordered, share) * 1000) for share in (step / 200 for step in range(201))]
    scale = _logarithmic([value for _, value in points])
    panel = (_UPPER[0], _LOWER[1])
    yield from _panel(panel, f"ms, {outcome.latency_of}", scale, 1.0)
    yield _line(panel, scale, 1.0, points, _COLOURS["p50"])
    yield _text(_RIGHT, panel[1] + 40, f"share of the {outcome.unit}", "end")


class _Scale:
    """From values to a share of the panel's height."""

    def __init__(self, low: float, high: float, *, logarithmic: bool) -> None:
        self._low, self._high, self._logarithmic = low, high, logarithmic

    def share(self, value: float) -> float:
        if not self._logarithmic:
            return (value - self._low) / (self._high - self._low)
        value = min(max(value, self._low), self._high)
        return math.log(value / self._low) / math.log(self._high / self._low)

    def ticks(self) -> list[float]:
        if self._logarithmic:
            return [10.0**power for power in range(round(math.log10(self._low)), round(math.log10(self._high)) + 1)]
        return [self._low + (self._high - self._low) * step / _TICKS for step in range(_TICKS + 1)]


def _linear(largest: float) -> _Scale:
    magnitude = 10 ** math.floor(math.log10(max(largest, 1.0)))
    return _Scale(0.0, math.ceil(max(largest, 1.0) / magnitude) * magnitude, logarithmic=False)


def _logarithmic(values: Sequence[float]) -> _Scale:
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return _Scale(10.0**low, 10.0 ** max(high, low + 1), logarithmic=True)


def _panel(panel: tuple[int, int], label: str, scale: _Scale, end: float) -> Iterator[str]:
    top, bottom = panel
    for tick in scale.ticks():
        y = bottom - (bottom - top) * scale.share(tick)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 8, y + 4, f"{tick:,g}", "end")
    for step in range(_TICKS + 1):
        yield _text(_LEFT + (_RIGHT - _LEFT) * step / _TICKS, bottom + 16, f"{end * step / _TICKS:.3g}", "middle")
    yield _text(_LEFT, top - 8, label, "start")


def _line(panel: tuple[int, int], scale: _Scale, end: float, points: Sequence[tuple[float, float]], colour: str) -> str:
    top, bottom = panel
    places = (
        f"{_LEFT + (_RIGHT - _LEFT) * at / end:.1f},{bottom - (bottom - top) * scale.share(value):.1f}" for at, value in points
    )
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(places)}"/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 12, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
