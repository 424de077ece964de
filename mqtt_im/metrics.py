"""What the server counts, for `/metrics`.

Counting must cost next to nothing on the way of a message, so a count is one addition in a plain dict, and
prometheus-client only renders them. Every metric is declared here, with its labels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "connections": ("Connections accepted.", ("listener",)),
    "closes": ("Connections closed, by reason.", ("reason",)),
    "connects_refused": ("Connections closed or refused before they were let in, by reason.", ("reason",)),
    "malformed_packets": ("Packets that broke the protocol, by what was wrong.", ("reason",)),
    "refused_subscriptions": ("Filters answered with 0x80.", ()),
    "throttled": ("Requests delayed because their user is too fast.", ()),
    "logins": ("Logins, by result.", ("result",)),
    "uplinks": ("Requests received, by op.", ("op",)),
    "errors": ("Requests answered with an error, by code.", ("code",)),
    "forbidden_publishes": ("Publishes to closed topics, acknowledged and dropped.", ()),
    "items": ("Items written to devices, redeliveries included.", ()),
    "plain_messages": ("Messages on plain topics received.", ()),
    "plain_dropped": ("Messages on plain topics that a full queue dropped.", ()),
    "session_store_failures": ("Transactions of the MQTT sessions' store that failed.", ()),
    "webhooks": ("Attempts to send webhooks, by event and result.", ("event", "result")),
    "http_refused": ("HTTP connections closed or refused, by reason.", ("reason",)),
    "log_lines_suppressed": ("Log lines held back by their rate limit.", ()),
}
HISTOGRAMS: Final[dict[str, tuple[str, tuple[float, ...]]]] = {
    "login_seconds": ("From a CONNECT to the answer about its password.", (0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)),
}


class _Counts(dict[tuple[str, tuple[str, ...]], list[float]]):
    """Counters by name and label values, each a list of one; a first count of something that is not declared fails."""

    def __missing__(self, key: tuple[str, tuple[str, ...]]) -> list[float]:
        name, values = key
        if name not in COUNTERS or len(COUNTERS[name][1]) != len(values):
            raise KeyError(f"{name} with {len(values)} labels is not declared in COUNTERS")
        cell = self[key] = [0.0]
        return cell


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class _Figure(NamedTuple):
    """A value that is read when it is asked for."""

    help: str
    read: Callable[[], float]
    grows: bool


class Metrics:
    """The counters of one server. One label combination is counted from one thread only; reading them is safe from any."""

    def __init__(self) -> None:
        self._counts = _Counts()
        self._histograms = {name: _Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}
        self._figures: dict[str, _Figure] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for name, (_, labels) in COUNTERS.items():
            if not labels:
                self._counts[name, ()] = [0.0]

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter of `COUNTERS`, with its labels in the order in which they are declared."""
        self._counts[name, tuple(labels.values())][0] += amount

    def cell(self, name: str, **labels: str) -> list[float]:
        """The counter itself, as a list of one number, for who counts so often that finding it would cost."""
        return self._counts[name, tuple(labels.values())]

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram of `HISTOGRAMS`."""
        histogram = self._histograms[name]
        histogram.counts[bisect_left(histogram.bounds, value)] += 1
        histogram.total += value

    def show(self, name: str, description: str, read: Callable[[], float], *, grows: bool = False) -> None:
        """Show what `read` returns whenever the metrics are asked for, on the event loop; `grows` says that it is a counter."""
        self._figures[name] = _Figure(description, read, grows)

    def value(self, name: str, **labels: str) -> float:
        """What a counter stands at."""
        return self._counts.get((name, tuple(labels.values())), [0.0])[0]

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks of a collector."""
        families: dict[str, CounterMetricFamily] = {}
        for name, (description, labels) in COUNTERS.items():
            families[name] = CounterMetricFamily(f"mqtt_im_{name}", description, labels=labels)
        for (name, values), cell in list(self._counts.items()):
            families[name].add_metric(values, cell[0])
        yield from families.values()
        for name, histogram in self._histograms.items():
            family = HistogramMetricFamily(f"mqtt_im_{name}", HISTOGRAMS[name][0])
            family.add_metric((), _buckets(histogram), histogram.total)
            yield family
        for name, figure in self._figures.items():
            family_of = CounterMetricFamily if figure.grows else GaugeMetricFamily
            yield family_of(f"mqtt_im_{name}", figure.help, value=figure.read())


def _buckets(histogram: _Histogram) -> list[tuple[str, float]]:
    """The cumulative counts that Prometheus wants."""
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        running += count
        buckets.append((str(bound), running))
    return buckets
