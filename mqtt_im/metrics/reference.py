"""The reference page of the metrics, made from what is declared."""

from __future__ import annotations

from collections.abc import Iterator

from mqtt_im.metrics import COUNTERS, FIGURES, HISTOGRAMS, SUMS

_HEAD = """# Metrics

<!-- Made by `make docs` from mqtt_im/metrics; change it there. -->

What `/metrics` tells Prometheus, at the address of `http.bind` or at `http.metrics_bind`. What is worth an alarm stands in
[operations.md](operations.md#what-to-watch) and [prometheus-rules.yml](../config/prometheus-rules.yml), and
[grafana-dashboard.json](../config/grafana-dashboard.json) is a dashboard. A counter only grows, and begins at 0 with each start
of the server; one with labels is there from the first time that it is counted. No label names a user.

| metric | kind | labels | what it is |
|---|---|---|---|
"""
_TAIL = """
`process_…` (memory, CPU time, open files, start) and `python_…` (version, garbage collection) are those of prometheus-client.
"""


def render() -> str:
    """The page, in Markdown."""
    return _HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in sorted(_rows())) + _TAIL


def _rows() -> Iterator[tuple[str, str, str, str]]:
    for name, (text, labels) in COUNTERS.items():
        yield f"`mqtt_im_{name}_total`", "counter", ", ".join(f"`{label}`" for label in labels), text
    for name, text in SUMS.items():
        yield f"`mqtt_im_{name}_total`", "counter", "", text
    for name, (text, label) in FIGURES.items():
        yield f"`mqtt_im_{name}`", "gauge", f"`{label}`" if label else "", text
    for name, (text, bounds) in HISTOGRAMS.items():
        yield f"`mqtt_im_{name}`", "histogram", "`le`", f"{text} Bounds: {', '.join(f'{bound:g}' for bound in bounds)}."
