"""Durable 1:1 messages between 50 pairs, against brokers that relay the same payload without keeping anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.meter import Usage, at_rest, usage
from bench.report import Row, Target
from bench.servers import Server, running
from mqtt_im.load.figures import percentile
from mqtt_im.load.peer import Peer
from mqtt_im.load.traffic import LoneSender, Sender, Traffic, connect_pairs, finish, join, pace

_WARM_UP_S = 1.0

_TARGETS: Mapping[str, tuple[Target, ...]] = {
    "20 in flight: server CPU, lazy work included": (Target(60), Target(3, 1.5, over="×")),
    "1 in flight: server CPU, lazy work included": (Target(150),),
    "1 in flight: p50": (Target(5, 2, over="×"),),
    "paced 500/s: p50": (Target(2, 0.5, over="+"),),
}


@dataclass(frozen=True, slots=True)
class Load:
    """How much is sent."""

    pairs: int = 50
    inflight: int = 20
    """Messages of a pair on their way; 0 where `rate` sets the pace."""
    rate: float = 0.0
    """Messages a second of all pairs together."""
    seconds: float = 5.0

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.inflight} in flight" if self.inflight else f"paced {self.rate:g}/s"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of one server showed."""

    messages: int
    used: Usage
    latencies: Sequence[float]
    """Seconds, ordered."""
    written: Usage
    """From the first message to the quiet after the last one, lazy writes included."""
    sent_in_all: int
    """Messages between the same two moments."""

    def figures(self) -> dict[tuple[str, str], float]:
        """(name, unit) → value."""
        thousand = self.messages / 1000
        found = {
            ("server CPU", "ms/1000"): self.used.cpu_s * 1000 / thousand,
            ("server CPU, lazy work included", "ms/1000"): self.written.cpu_s * 1000 / (self.sent_in_all / 1000),
            ("throughput", "msg/s"): self.messages / self.used.wall_s,
            ("p50", "ms"): percentile(self.latencies, 0.5) * 1000,
            ("p99", "ms"): percentile(self.latencies, 0.99) * 1000,
            ("generator busy", "%"): 100 * self.used.generator_cpu_s / self.used.wall_s,
            ("server core used by others", "%"): 100 * self.used.others_share,
        }
        if self.written.dirtied_bytes:
            found["bytes written (write_bytes)", "KB/msg"] = self.written.dirtied_bytes / self.sent_in_all / 1000
            found["bytes written (disk, everybody)", "KB/msg"] = self.written.disk_bytes / self.sent_in_all / 1000
        return found


async def between_pairs(server: Server, load: Load, names: Sequence[tuple[str, str]]) -> Result:
    """Load between connected pairs; every message is checked at both ends."""
    traffic = Traffic()
    pairs = await connect_pairs(server, traffic, names)
    senders = [sender for sender, _ in pairs]
    return await _measured(server, load, traffic, senders, [peer for pair in pairs for peer in pair])


async def to_anybody(server: Server, load: Load, users: Sequence[str], recipients: Sequence[Sequence[str]]) -> Result:
    """Load from `users`, each going round its `recipients`, who may be away: done is when `sent` has come."""
    traffic = Traffic()
    senders: list[Sender] = []
    for user, theirs in zip(users, recipients, strict=True):
        sender = LoneSender(traffic, user, theirs, server)
        await join(server, sender, user, f"im/v1/{user}/down")
        senders.append(sender)
    return await _measured(server, load, traffic, senders, senders)


async def _measured(server: Server, load: Load, traffic: Traffic, senders: Sequence[Sender], peers: Sequence[Peer]) -> Result:
    await at_rest(server.pid)
    first = usage(server.pid, server.directory)
    traffic.sending = True
    pacer = None
    for sender in senders:
        sender.inflight = load.inflight
    if load.inflight:
        for sender in senders:
            sender.pump()
    else:
        pacer = asyncio.create_task(pace(traffic, senders, load.rate))
    await traffic.passing(_WARM_UP_S)
    before, count = usage(server.pid, server.directory), traffic.delivered
    traffic.measuring = True
    await traffic.passing(load.seconds)
    after, messages = usage(server.pid, server.directory), traffic.delivered - count
    traffic.measuring = False
    traffic.sending = False
    if pacer:
        await pacer
    await finish(traffic, senders, peers)
    if server.is_ours:
        await at_rest(server.pid)
    return Result(
        messages=messages,
        used=after - before,
        latencies=sorted(traffic.latencies),
        written=usage(server.pid, server.directory) - first,
        sent_in_all=traffic.delivered,
    )


def names_of(count: int) -> list[tuple[str, str]]:
    """(sender, recipient) of so many pairs."""
    return [(f"a{number}", f"b{number}") for number in range(count)]


async def compare(servers: Sequence[str], loads: Sequence[Load], settings: Mapping[str, str]) -> list[Row]:
    """Every load against every server, on a fresh server each."""
    rows: dict[tuple[str, str], Row] = {}
    for load in loads:
        for name in servers:
            with running(name, settings) as server:
                result = await between_pairs(server, load, names_of(load.pairs))
            for (what, unit), value in result.figures().items():
                title = f"{load.name}: {what}"
                row = rows.setdefault((title, unit), Row(title, unit, targets=_TARGETS.get(title, ())))
                row.values[name] = value
    return list(rows.values())
