"""One message to 1,000 connected members of a group, against a topic with 1,000 subscribers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench import wire
from bench.meter import usage
from bench.peer import Peer, PeerError
from bench.report import Row, Target
from bench.servers import Server, running
from bench.traffic import DEVICE, PREFIX, Sender, Traffic, connect_idle, finish, join

_GROUP = "#everyone"
_OWNER = "owner"
_INFLIGHT = 4
_WARM_UP_S = 1.0


class _Speaker(Sender):
    """Sends to the group; its message has arrived when as many copies have come as there are members."""

    members = 0
    copies = 0

    def copy(self) -> None:
        """One member has got one message."""
        self.copies += 1
        if self.copies % self.members == 0:
            self.arrived += 1
            self.pump()


class _Creator(Peer):
    """Makes the group, and has its answer."""

    answer = b""

    def received(self, data: bytes, start: int, stop: int) -> None:
        if data.find(b'"ok"', start, stop) >= 0 or data.find(b'"error"', start, stop) >= 0:
            self.answer = data[start:stop]


def _listen(member: Peer, speaker: _Speaker) -> None:
    def received(data: bytes, start: int, stop: int) -> None:
        if data.find(b'"body"', start, stop) >= 0:  # not the message that the group was made
            speaker.copy()
            if speaker.traffic.measuring:
                speaker.traffic.delivered += 1

    member.received = received  # type: ignore[method-assign]
    member.fail = speaker.traffic.fail  # type: ignore[method-assign]


async def _make_group(server: Server, traffic: Traffic, members: Sequence[str]) -> None:
    creator = _Creator()
    await join(server, creator, _OWNER, f"{PREFIX}/{_OWNER}/down")
    request = {"op": "group.create", "id": "create", "group": _GROUP, "members": list(members)}
    creator.transport.write(wire.publish(f"{PREFIX}/{_OWNER}/{DEVICE}/up", json.dumps(request).encode(), 1))
    await traffic.until(lambda: bool(creator.answer))
    if b'"ok"' not in creator.answer:
        raise PeerError(f"group.create was answered with {creator.answer.decode()}")
    creator.leave()
    await creator.closed


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
                await _make_group(server, traffic, users)
            speaker = _Speaker(traffic, _OWNER, [_GROUP], server)
            speaker.members, speaker.inflight = members, _INFLIGHT
            up = f"{PREFIX}/{_OWNER}/{DEVICE}/up"
            peers = await connect_idle(server, users, None if server.is_ours else up)
            for peer in peers:
                _listen(peer, speaker)
            await join(server, speaker, _OWNER, f"{PREFIX}/{_OWNER}/down")
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
