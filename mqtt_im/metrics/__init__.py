"""What the server counts, for `/metrics`.

Counting must cost next to nothing on the way of a message, so a count is one addition in a plain dict, and
prometheus-client only renders them. Every metric is declared here, with its labels; `reference` makes docs/metrics.md of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .histogram import Histogram

COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "connections_accepted": ("Sockets accepted, by listener.", ("listener",)),
    "closes": (
        "Connections closed, by reason: disconnect, lost, keep_alive, taken_over, malformed, refused, not_reading, stopping, …",
        ("reason",),
    ),
    "connects_refused": (
        "Connections closed or refused before they were let in, by reason: connack_4, max_connections_per_user, …",
        ("reason",),
    ),
    "malformed_packets": ("Packets that broke the protocol, by what was wrong.", ("reason",)),
    "refused_subscriptions": ("Filters answered with 0x80.", ()),
    "throttled": ("Requests delayed because their user is too fast.", ()),
    "logins": ("Logins, by result.", ("result",)),
    "uplinks": ("Requests received, by op.", ("op",)),
    "refusals": ("Requests that were refused, by code.", ("code",)),
    "quota_refusals": (
        "Requests refused since their user keeps as much as [quota] allows, by what of; mqtt-im user show tells how much.",
        ("what",),
    ),
    "messages_committed": ("Messages, changes to groups among them, that were committed.", ()),
    "forbidden_publishes": ("Publishes to closed topics, acknowledged and dropped.", ()),
    "items": ("Items written to devices, redeliveries included.", ()),
    "plain_messages": ("Messages on plain topics received.", ()),
    "plain_dropped": ("Messages on plain topics that a full queue dropped.", ()),
    "plain_expired": ("Messages on plain topics whose time was over before they were sent.", ()),
    "refused_by_clients": (
        "Acknowledgements of MQTT 5 clients that say that they did not want a message, by reason code.",
        ("code",),
    ),
    "sessions_given_up": ("Kept MQTT sessions that ended early, since those of clients that are away took too much memory.", ()),
    "session_store_failures": ("Transactions of the MQTT sessions' store that failed.", ()),
    "webhooks": ("Attempts to send webhooks, by event and result.", ("event", "result")),
    "uploads": ("Files uploaded.", ()),
    "uploads_refused": (
        "Uploads refused, by code: too_large, quota, unsupported_type, bad_field, or unavailable (the disk, or the S3 store).",
        ("code",),
    ),
    "http_refused": (
        "HTTP connections closed or refused, by reason: idle (its place was wanted), max_connections, head_timeout, …",
        ("reason",),
    ),
    "log_lines_suppressed": ("Log lines held back, since a client causes too many of one kind.", ()),
}
HISTOGRAMS: Final[dict[str, tuple[str, tuple[float, ...]]]] = {
    "commit_seconds": (
        "From a request's coming to its commit.",
        (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
    ),
    "delivery_seconds": (
        "From an item's commit to its acknowledgement by a device that was connected when it was committed.",
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
    ),
    "batch_jobs": ("Requests and reads that were worked on together.", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)),
    "login_seconds": ("From a CONNECT to the answer about its password.", (0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)),
}
FIGURES: Final[dict[str, tuple[str, str]]] = {
    "connections": ("Connections that are logged in: mqtt3, mqtt5, either with /ws, and sse.", "protocol"),
    "ledger_queue_jobs": ("Requests and reads that wait for the ledger's thread, or for their answer.", ""),
    "devices_behind": ("Registered devices, connected or not, that have not acknowledged all of their inbox.", ""),
    "worst_lag_items": ("Items that the device which is furthest behind lacks.", ""),
    "tasks": ("Tasks of the event loop: a few, and one more for each login, subscription or upload that is being handled.", ""),
    "webhooks_waiting": ("Webhooks that wait to be sent.", ""),
    "webhooks_dead": ("Webhooks that were put aside after too many attempts.", ""),
    "store_failing": ("1 while the store can't commit.", ""),
    "node_info": ("1, with the name of the node whose metrics these are.", "node"),
    "nodes": ("Nodes that live, as this one sees them: 1 where it is alone.", ""),
}
"""What is read when it is asked for, and the label that it comes by, if any."""
SUMS: Final[dict[str, str]] = {
    "commits": "Transactions committed to the log; records by commits is what group commit saves.",
    "records": "Records committed to the log.",
    "mistakes": "Exceptions that nobody had expected; the server went on. The log has tracebacks, of the same a few a minute.",
    "log_lines_dropped": "Log lines dropped because nobody read stderr in time.",
}
"""Counters that are counted elsewhere, and read when they are asked for."""


class _Counts(dict[tuple[str, tuple[str, ...]], list[float]]):
    """Counters by name and label values, each a list of one; a first count of something that is not declared fails."""

    def __missing__(self, key: tuple[str, tuple[str, ...]]) -> list[float]:
        name, values = key
        if name not in COUNTERS or len(COUNTERS[name][1]) != len(values):
            raise KeyError(f"{name} with {len(values)} labels is not declared in COUNTERS")
        cell = self[key] = [0.0]
        return cell


class Metrics:
    """The counters of one server. One label combination is counted from one thread only; reading them is safe from any."""

    def __init__(self) -> None:
        self._counts = _Counts()
        self._histograms = {name: Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}
        self._figures: dict[str, Callable[[], float]] = {}
        self._families: dict[str, Callable[[], Mapping[str, float]]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
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
        self._histograms[name].observe(value)

    def observer(self, name: str) -> Callable[[float], None]:
        """`observe` of one histogram, for who observes so often that finding it would cost."""
        return self._histograms[name].observe

    def show(self, name: str, read: Callable[[], float]) -> None:
        """Show what `read` returns, of `FIGURES` or `SUMS`, whenever the metrics are asked for, on the event loop."""
        if name not in SUMS and FIGURES.get(name, ("", name))[1]:
            raise KeyError(f"{name} without a label is not declared in FIGURES or SUMS")
        self._figures[name] = read

    def show_each(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Show the values that `read` returns, by the label of `FIGURES`, whenever the metrics are asked for, on the loop."""
        if not FIGURES[name][1]:
            raise KeyError(f"{name} has no label in FIGURES")
        self._families[name] = read

    def figure(self, name: str) -> float:
        """What a value of `show` is now."""
        return self._figures[name]()

    def total(self, name: str) -> float:
        """What a counter stands at, over all its labels."""
        return sum(cell[0] for (other, _), cell in list(self._counts.items()) if other == name)

    def each(self, name: str) -> dict[str, float]:
        """What a counter with one label stands at, by that label."""
        return {values[0]: cell[0] for (other, values), cell in list(self._counts.items()) if other == name}

    def buckets(self, name: str) -> tuple[tuple[float, ...], list[int]]:
        """The bounds of a histogram, and how many values lie below each and above the one before, the last ones above all."""
        histogram = self._histograms[name]
        return histogram.bounds, list(histogram.counts)

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
        for name, each in self._families.items():
            gauge = GaugeMetricFamily(f"mqtt_im_{name}", FIGURES[name][0], labels=(FIGURES[name][1],))
            for label, value in sorted(each().items()):
                gauge.add_metric((label,), value)
            yield gauge
        for name, read in self._figures.items():
            if name in SUMS:
                yield CounterMetricFamily(f"mqtt_im_{name}", SUMS[name], value=read())
            else:
                yield GaugeMetricFamily(f"mqtt_im_{name}", FIGURES[name][0], value=read())


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """The cumulative counts that Prometheus wants."""
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        running += count
        buckets.append((str(bound), running))
    return buckets
