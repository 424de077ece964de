"""The loads of `mqtt-im bench`. Each checks what it gets: a message that is missing, doubled or out of place ends the run."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final

from mqtt_im.load import wire
from mqtt_im.load.broker import Broker
from mqtt_im.load.groups import Member, Speaker, make_group
from mqtt_im.load.local import Local, Used
from mqtt_im.load.peer import Peer, PeerError, close_all
from mqtt_im.load.plan import Moment, Outcome, Plan, Workload
from mqtt_im.load.traffic import LoneSender, Sender, Traffic, connect_idle, connect_pairs, finish, join, pace, some_at_once
from mqtt_im.load.visitors import Tally, visit

_STEP_S: Final = 0.25
_ANSWER_S: Final = 10.0
_CATCH_UP_S: Final = 300.0
_STORM_S: Final = 600.0
_PATIENCE_S: Final = 10.0
_POS: Final = re.compile(rb'"pos":\s*(\d+)')

Progress = Callable[[str, float], None]
"""Is told what goes on, and which share of it is done."""


class _Resting(Peer):
    """A connection that only waits; the run is over where it ends."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def fail(self, error: PeerError) -> None:
        self.traffic.fail(error)


class _Greeter(_Resting):
    """Says `hello`."""

    welcome: dict[str, object] | None = None

    def received(self, data: bytes, start: int, stop: int) -> None:
        if data.find(b'"welcome"', start, stop) >= 0:
            self.welcome = json.loads(data[start:stop])


class _Returning(_Resting):
    """A device that comes back to what it missed; every item must be the next."""

    def __init__(self, traffic: Traffic, expected: int) -> None:
        super().__init__(traffic)
        self.expected = expected
        self.items = 0
        self.came: list[float] = []
        """When the first and the last of them came."""

    def received(self, data: bytes, start: int, stop: int) -> None:
        found = _POS.search(data, start, stop)
        if found is None:
            return  # an event
        self.items += 1
        if int(found[1]) != self.items:
            self.fail(PeerError(f"item {int(found[1])} came as number {self.items}"))
        if self.items in (1, self.expected):
            self.came.append(perf_counter())


@dataclass(slots=True)
class _Run:
    """What every load needs."""

    broker: Broker
    plan: Plan
    progress: Progress
    local: Local
    traffic: Traffic
    rate: float = 0.0
    """What the server allows each user, in requests a second; 0: not known."""

    async def greeted(self) -> None:
        """The server is one of ours. Raises `PeerError`."""
        user = self.plan.senders()[0]
        greeter = _Greeter(self.traffic)
        self.progress("connecting", 0.0)
        await join(self.broker, greeter, user, self.broker.down(user))
        greeter.transport.write(wire.publish(self.broker.up(user), b'{"op":"hello","id":"hello"}', 1))
        try:
            await self.traffic.until(lambda: greeter.welcome is not None, _ANSWER_S)
        except PeerError:
            if self.traffic.failed.done():
                raise
            raise PeerError("the server does not answer `hello`; for a broker that is not MQTT-IM: --workload plain") from None
        limits = (greeter.welcome or {}).get("limits")
        if isinstance(limits, Mapping):
            self.rate = float(limits.get("rate") or 0)
        await close_all([greeter])

    async def passing(self, what: str, seconds: float, latencies: Sequence[float] = ()) -> list[Moment]:
        """Time goes by; how far the traffic has come meanwhile."""
        begin, first = perf_counter(), self.traffic.delivered
        moments = [Moment(0.0, 0, len(latencies))]
        steps = max(1, round(seconds / _STEP_S))
        for step in range(1, steps + 1):
            await self.traffic.passing(max(0.0, begin + seconds * step / steps - perf_counter()))
            moments.append(Moment(perf_counter() - begin, self.traffic.delivered - first, len(latencies)))
            self.progress(what, step / steps)
        return moments

    def outcome(self, unit: str, count: int, used: Used, latency_of: str, latencies: Sequence[float]) -> Outcome:
        """With what is to be seen of the server's process."""
        process, memory = self.local.process, self.local.memory_bytes()
        return Outcome(
            unit=unit,
            count=count,
            used=used,
            latency_of=latency_of,
            latencies=latencies,
            pid=None if process is None else process.pid,
            memory_bytes=memory,
        )

    def limited(self, outcome: Outcome, senders: int) -> None:
        """Say so where the server's rate set the pace."""
        if self.rate and outcome.per_second / senders > 0.9 * self.rate:
            limit = f"limits.requests_per_second, {self.rate:g} for each user"
            outcome.hints.append(f"the server's limit set the pace ({limit}); raise it to see what the server can do")


async def _measured(run: _Run, senders: Sequence[Sender], peers: Sequence[Peer], unit: str, latency_of: str) -> Outcome:
    """The senders send; all of it is checked, and what comes after the warm-up counts."""
    plan, traffic = run.plan, run.traffic
    pacer = _start(plan, traffic, senders)
    await run.passing("warming up", min(1.0, plan.seconds / 4))
    before, first = run.local.used(), traffic.delivered
    traffic.measuring = True
    moments = await run.passing("measuring", plan.seconds, traffic.latencies)
    used, count = run.local.used() - before, traffic.delivered - first
    traffic.measuring = traffic.sending = False
    await pacer
    outcome = run.outcome(unit, count, used, latency_of, traffic.latencies)
    outcome.moments = moments
    await finish(traffic, senders, peers)
    return outcome


def _start(plan: Plan, traffic: Traffic, senders: Sequence[Sender]) -> Awaitable[None]:
    traffic.sending = True
    if plan.rate:
        return asyncio.ensure_future(pace(traffic, senders, plan.rate))
    for sender in senders:
        sender.inflight = plan.inflight
        sender.pump()
    return asyncio.sleep(0)


async def _pairs(run: _Run) -> Outcome:
    plan = run.plan
    pairs = await connect_pairs(run.broker, run.traffic, list(zip(plan.senders(), plan.recipients(), strict=True)))
    senders = [sender for sender, _ in pairs]
    outcome = await _measured(run, senders, [peer for pair in pairs for peer in pair], "messages", "send → received")
    run.limited(outcome, len(senders))
    return outcome


async def _group(run: _Run) -> Outcome:
    owner, members = run.plan.senders()[0], run.plan.recipients()
    group = f"#{run.plan.names}group"
    await make_group(run.broker, run.traffic, owner, group, members)
    speaker = Speaker(run.traffic, owner, group, run.broker, len(members))
    peers = await connect_idle(run.broker, members, None, partial(Member, speaker))
    await join(run.broker, speaker, owner, run.broker.down(owner))
    return await _measured(run, [speaker], [speaker, *peers], "deliveries", "send → received by a member")


async def _idle(run: _Run) -> Outcome:
    users = run.plan.senders()
    memory, before, took = run.local.memory_bytes(), run.local.used(), list[float]()
    peers = [_Resting(run.traffic) for _ in users]

    async def come(peer: Peer, user: str) -> None:
        begin = perf_counter()
        await join(run.broker, peer, user, run.broker.down(user))
        took.append(perf_counter() - begin)
        run.progress("connecting", len(took) / len(users))

    await some_at_once([partial(come, peer, user) for peer, user in zip(peers, users, strict=True)])
    used = run.local.used() - before
    resting = run.local.used()
    await run.passing("idle", run.plan.seconds)
    rested = run.local.used() - resting
    outcome = run.outcome("connections", len(peers), used, "connect → subscribed", took)
    if outcome.memory_bytes is not None and memory is not None:
        outcome.extra["memory_kb_a_connection"] = (outcome.memory_bytes - memory) / len(peers) / 1000
        outcome.extra["server_cpu_percent_idle"] = 100 * rested.server_cpu_s / rested.wall_s
    await close_all(peers)
    return outcome


async def _storm(run: _Run) -> Outcome:
    users, dice = run.plan.senders(), random.Random(3)
    before, tally, rounds = run.local.used(), Tally(), 0
    begin = perf_counter()
    while not rounds or perf_counter() - begin < run.plan.seconds:
        run.progress("logging in", min(1.0, (perf_counter() - begin) / run.plan.seconds))
        now = perf_counter()
        visits = [
            asyncio.ensure_future(visit(run.broker, user, None, tally, _PATIENCE_S, now + number / len(users), dice))
            for number, user in enumerate(users)
        ]
        done, waiting = await asyncio.wait(visits, timeout=_STORM_S)
        for each in waiting:
            each.cancel()
        for each in done:
            each.result().close()
        if waiting:
            raise PeerError(
                f"{len(waiting)} of {len(users)} clients were not served within {_STORM_S:g} s: {_said(tally.failed)}"
            )
        rounds += 1
    outcome = run.outcome("logins", len(tally.served_s), run.local.used() - before, "first try → subscribed", tally.served_s)
    outcome.extra = {"rounds": rounds, **{f"tries_{answer.replace(' ', '_')}": count for answer, count in tally.failed.items()}}
    return outcome


def _said(failed: Counter[str]) -> str:
    return ", ".join(f"{count} × {answer}" for answer, count in failed.most_common()) or "no answer"


async def _catch_up(run: _Run) -> Outcome:
    plan, traffic, broker = run.plan, run.traffic, run.broker
    for device in await connect_idle(broker, plan.recipients(), None, partial(_Resting, traffic)):
        device.leave()
    senders = [LoneSender(traffic, user, [to], broker) for user, to in zip(plan.senders(), plan.recipients(), strict=True)]
    await some_at_once([partial(join, broker, sender, sender.user, broker.down(sender.user)) for sender in senders])
    pacer = _start(plan, traffic, senders)
    await run.passing("filling", plan.seconds)
    traffic.sending = False
    await pacer
    await finish(traffic, senders, senders)
    devices = [_Returning(traffic, sender.started) for sender in senders]
    missed = sum(device.expected for device in devices)
    before, begin = run.local.used(), perf_counter()
    comes = zip(devices, plan.recipients(), strict=True)
    await some_at_once([partial(join, broker, device, user, broker.down(user)) for device, user in comes])
    deadline = begin + _CATCH_UP_S
    while (done := sum(device.items for device in devices)) < missed:
        run.progress("catching up", done / missed)
        await traffic.passing(0.01)
        if perf_counter() > deadline:
            raise PeerError(f"{missed - done} of {missed} items had not come after {_CATCH_UP_S:g} s")
    run.progress("catching up", 1.0)
    used = run.local.used() - before
    latencies = [device.came[-1] - begin for device in devices if device.came]
    outcome = run.outcome("items", missed, used, "connect → everything that was missed", latencies)
    firsts = sorted(device.came[0] - begin for device in devices if device.came)
    outcome.extra = {
        "first_item_p50_ms": firsts[len(firsts) // 2] * 1000 if firsts else 0.0,
        "items_a_device": missed / len(devices),
    }
    await close_all(devices)
    return outcome


_WORKLOADS: Mapping[Workload, Callable[[_Run], Awaitable[Outcome]]] = {
    "direct": _pairs,
    "group": _group,
    "idle": _idle,
    "storm": _storm,
    "catchup": _catch_up,
    "plain": _pairs,
}


async def run(broker: Broker, plan: Plan, progress: Progress = lambda _what, _share: None) -> Outcome:
    """The load of `plan` on `broker`. Raises `PeerError` where something is not as it must be, `OSError` for the network."""
    this = _Run(broker, plan, progress, Local(broker.host, broker.port), Traffic())
    if broker.is_ours:
        await this.greeted()
    return await _WORKLOADS[plan.workload](this)
