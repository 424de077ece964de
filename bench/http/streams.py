"""Event streams: what an item costs on them beside MQTT, and ten thousand of them that only stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from bench.http.client import EventStream
from bench.http.turns import turns
from bench.meter import Usage, resident_bytes, usage
from bench.pairs import Load, Result, between_pairs, names_of
from bench.report import Row, Target
from bench.servers import OURS, Server, running
from mqtt_im.load.figures import percentile
from mqtt_im.load.groups import Member, Speaker, make_group
from mqtt_im.load.peer import PeerError, close_all
from mqtt_im.load.traffic import Traffic, connect_idle, join

ADMIN = "an-admin-token"
SETTINGS = {"auth.admin_token": ADMIN}
_MEMBERS = 200
_INFLIGHT = 4
_OPENED_AT_ONCE = 100
_PACE = Load(pairs=50, inflight=0, rate=500)


class _Listener(EventStream):
    """A member of the group, on a stream."""

    def __init__(self, speaker: Speaker, user: str) -> None:
        super().__init__("/api/v1/events", ADMIN, act_as=user, told=self._told)
        self._speaker = speaker
        self._heard = 0
        self._rest = b""

    def _told(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            if b'"body"' not in event:
                continue
            if b"-%08d" % self._heard not in event:
                self._speaker.traffic.fail(PeerError(f"instead of message {self._heard} came {event!r}"))
                return
            self._heard += 1
            self._speaker.copy(self._heard - 1)


async def deliveries(seconds: float) -> list[Row]:
    """CPU time of a message to a group whose members are all on MQTT, and to one whose members are all on streams, in turns."""
    row = Row(
        f"a message to {_MEMBERS} streams, and to {_MEMBERS} MQTT devices: server CPU",
        "ms",
        targets=(Target(2, over="×"),),
        reference="MQTT",
    )
    with running(OURS, SETTINGS) as server:
        traffic = Traffic()
        speakers = {}
        for way in ("mqtt", "sse"):
            users = [f"{way}{number}" for number in range(_MEMBERS)]
            owner, group = f"owner-{way}", f"#{way}"
            await make_group(server, traffic, owner, group, users)
            speaker = speakers[way] = Speaker(traffic, owner, group, server, _MEMBERS)
            if way == "mqtt":
                members = await connect_idle(server, users, None, partial(Member, speaker))
            else:
                streams = [_Listener(speaker, user) for user in users]
                await _open(server, streams)
            await join(server, speaker, owner, server.down(owner))

        async def spoken(way: str, duration: float) -> tuple[Usage, int]:
            speaker = speakers[way]
            before, first = usage(server.pid), speaker.arrived
            speaker.inflight, traffic.sending = _INFLIGHT, True
            speaker.pump()
            await traffic.passing(duration)
            traffic.sending = False
            await traffic.until(speaker.finished)
            return usage(server.pid) - before, speaker.arrived - first

        found = await turns(("mqtt", "sse"), spoken, seconds)
        row.values = {"MQTT": found["mqtt"].cpu_s * 1000, OURS: found["sse"].cpu_s * 1000}
        for stream in streams:
            stream.close()
        await close_all([*members, *speakers.values()])
    return [row]


async def idle(count: int, seconds: float) -> list[Row]:
    """Paced pairs over MQTT without any stream, and beside many that only stay open; their memory."""
    p99 = Row(f"paced {_PACE.rate:g}/s: p99, beside {count:,} open streams", "ms", reference="no stream")
    cpu = Row(f"paced {_PACE.rate:g}/s: server CPU, beside {count:,} open streams", "ms/1000", reference="no stream")
    memory = Row("memory of an open stream", "KB")
    load = Load(_PACE.pairs, 0, _PACE.rate, seconds)
    settings = {**SETTINGS, "limits.max_connections": str(2 * count), "http.max_connections": str(2 * count)}
    with running(OURS, settings) as server:
        names = names_of(load.pairs)
        await between_pairs(server, load, names)  # everything is warm after it
        results: dict[str, Result] = {"no stream": await between_pairs(server, load, names)}
        before = resident_bytes(server.pid)
        streams = [EventStream("/api/v1/events", ADMIN, act_as=f"watcher{number}") for number in range(count)]
        await _open(server, streams)
        memory.values[OURS] = (resident_bytes(server.pid) - before) / count / 1000
        results[OURS] = await between_pairs(server, load, names)
        if gone := sum(stream.closed for stream in streams):
            raise PeerError(f"{gone} streams were closed")
        for name, result in results.items():
            p99.values[name] = percentile(result.latencies, 0.99) * 1000
            cpu.values[name] = result.used.cpu_s * 1e6 / result.messages
        for stream in streams:
            stream.close()
    return [p99, cpu, memory]


async def _open(server: Server, streams: Sequence[EventStream]) -> None:
    for first in range(0, len(streams), _OPENED_AT_ONCE):
        await asyncio.gather(*(stream.dial(server.http_port) for stream in streams[first : first + _OPENED_AT_ONCE]))


async def watched(seconds: float) -> list[Row]:
    """Pairs over MQTT as fast as they can, in turns with nobody who looks on, and beside a scrape a second and a dashboard."""
    row = Row(
        "20 in flight: server CPU, with a scrape a second and an open dashboard",
        "ms/1000",
        targets=(Target(1.05, over="×"),),
        reference="unwatched",
    )
    with running(OURS, SETTINGS) as server:
        load = Load(50, 20, 0, 1)

        async def loaded(how: str, duration: float) -> tuple[Usage, int]:
            watching = asyncio.ensure_future(_watch(server)) if how == OURS else None
            try:
                result = await between_pairs(server, Load(load.pairs, load.inflight, 0, duration), names_of(load.pairs))
            finally:
                if watching is not None:
                    watching.cancel()
                    with suppress(asyncio.CancelledError):
                        await watching
            return result.used, result.messages

        found = await turns(("unwatched", OURS), loaded, seconds, turn_s=4)
        row.values = {how: cost.cpu_s * 1e6 for how, cost in found.items()}
    return [row]


async def _watch(server: Server) -> None:
    dashboard = EventStream("/api/v1/admin/stats/stream", ADMIN)
    await dashboard.dial(server.http_port)
    try:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            if b" 200 " not in await reader.readline():
                raise PeerError("a scrape was refused")
            await reader.read()
            writer.close()
            await asyncio.sleep(1)
    finally:
        dashboard.close()
