"""One message to 1,000 connected members of a group, against a topic with 1,000 subscribers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.meter import usage
from bench.report import Row, Target
from bench.servers import running
from mqtt_im.load.groups import Member, Speaker, make_group
from mqtt_im.load.traffic import Traffic, connect_idle, finish, join

_GROUP = "#everyone"
_OWNER = "owner"
_INFLIGHT = 4
_WARM_UP_S = 1.0


async def compare(servers: Sequence[str], members: int, seconds: float) -> list[Row]:
    """Deliveries that a second of the server's CPU time gives, and how many come a second."""
    per_cpu = Row(f"group of {members:,}: deliveries", "per CPU s", targets=(Target(0.4, 1, more_is_better=True, over="×"),))
    per_second = Row(per_cpu.what, "per s")
    spread = Row(f"group of {members:,}: until the last member has it, mean", "ms")
    busy = Row(f"group of {members:,}: generator busy", "%")
    for name in servers:
        with running(name) as server:
            traffic = Traffic()
            users = [f"member{number}" for number in range(members)]
            if server.is_ours:
                await make_group(server, traffic, _OWNER, _GROUP, users)
            speaker = Speaker(traffic, _OWNER, _GROUP, server, members)
            speaker.inflight = _INFLIGHT
            topic = None if server.is_ours else server.up(_OWNER)
            peers = await connect_idle(server, users, topic, partial(Member, speaker))
            await join(server, speaker, _OWNER, server.down(_OWNER))
            traffic.sending = True
            speaker.pump()
            await traffic.passing(_WARM_UP_S)
            before, first = usage(server.pid), speaker.arrived
            traffic.measuring = True
            await traffic.passing(seconds)
            used, count, rounds = usage(server.pid) - before, traffic.delivered, speaker.arrived - first
            traffic.measuring = False
            await finish(traffic, [speaker], [speaker, *peers])
            per_cpu.values[name] = count / used.cpu_s
            per_second.values[name] = count / used.wall_s
            spread.values[name] = _INFLIGHT * used.wall_s / max(rounds, 1) * 1000
            busy.values[name] = 100 * used.generator_cpu_s / used.wall_s
    return [per_cpu, per_second, spread, busy]
