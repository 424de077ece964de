"""What a well-behaved pair at 50 messages a second has of each attack of `attacks`, at the server's default limits."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter

import trustme

from bench import attacks, grounds
from bench.meter import folder_bytes, forget_peak, peak_bytes, resident_bytes, usage
from bench.report import Row, Target, tell
from bench.servers import OURS, Server, running
from mqtt_im.load import wire
from mqtt_im.load.broker import DEVICE, PREFIX
from mqtt_im.load.peer import Peer, PeerError
from mqtt_im.load.traffic import join
from mqtt_im.testing import free_ports

_PER_SECOND = 50
_PATIENCE_S = 60.0
_CALM_S = 1.0
_SETTLE_S = 3.0
_MOST_BYTES = 500_000_000
"""What the server may take under any attack, with the default limits."""
_GIVEN_BACK_S = 12.0
"""As long as the server may keep what was freed."""
_LAST_BYTES = 2_000
"""Of what an attack has said that ended by itself."""
_CONVERSATIONS = 5_000
_LARGE_ITEMS = 50
_PREPARED = (grounds.OPEN, grounds.OPERATOR)
"""Where there is much in the store, and a crowd is connected."""


class _Bob(Peer):
    """Notes when each message came."""

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[int, float] = {}

    def received(self, data: bytes, start: int, stop: int) -> None:
        at = data.find(b'"body":', start, stop)
        if at >= 0:
            number = data[at + 7 : stop].partition(b",")[0]
            if number.isdigit():
                self.came[int(number)] = perf_counter()


class _Asker(Peer):
    """Sends requests for the preparation and counts their answers."""

    answers = 0

    def received(self, data: bytes, start: int, stop: int) -> None:
        self.answers += 1

    async def ask(self, requests: Sequence[dict[str, object]]) -> None:
        """All of them are answered."""
        up, packet = f"{PREFIX}/{attacks.FOE}/{DEVICE}/up", 0
        for first in range(0, len(requests), 100):
            before = self.pubacks
            some = requests[first : first + 100]
            for request in some:
                packet = packet % 30_000 + 1
                self.transport.write(wire.publish(up, json.dumps(request).encode(), packet))
            async with asyncio.timeout(_PATIENCE_S):
                await self.answered(before + len(some))

    async def answered(self, pubacks: int) -> None:
        """So many requests have their PUBACK."""
        while self.pubacks < pubacks:  # noqa: ASYNC110 - what comes is counted where it costs least
            await asyncio.sleep(0.005)


async def _prepare(data: Path) -> None:
    """Many conversations, a large group, and an inbox of large items, made without a limit on the rate."""
    with running(OURS, data=data) as server:
        asker = _Asker()
        await join(server, asker, attacks.FOE, f"{PREFIX}/{attacks.FOE}/{DEVICE}/down")
        large = "x" * 60_000
        requests: list[dict[str, object]] = [
            {"op": "send", "id": f"l{number}", "to": attacks.FOE, "body": large} for number in range(_LARGE_ITEMS)
        ]
        members = [*attacks.MEMBERS[:4_998], attacks.STAR]
        requests.append({"op": "group.create", "id": "crowd", "group": attacks.GROUP, "members": members})
        requests += [
            {"op": "send", "id": f"c{number}", "to": f"user{number}", "body": "hello there"} for number in range(_CONVERSATIONS)
        ]
        await asker.ask(requests)
        asker.leave()
        await asker.closed


class _Pair:
    """Alice writes to bob; how long each message takes is what is measured."""

    def __init__(self) -> None:
        self.alice, self.bob = Peer(), _Bob()
        self._sent: dict[int, float] = {}
        self._number = 0

    async def begin(self, server: Server, passwords: Mapping[str, str]) -> None:
        await join(server, self.bob, "bob", f"{PREFIX}/bob/down", passwords.get("bob"))
        await join(server, self.alice, "alice", f"{PREFIX}/alice/down", passwords.get("alice"))

    async def p99(self, seconds: float) -> float:
        """Of the messages of so many seconds, in ms; one that never comes counts as `_PATIENCE_S`."""
        up, begin, first = f"{PREFIX}/alice/{DEVICE}/up", perf_counter(), self._number + 1
        while perf_counter() - begin < seconds:
            self._number += 1
            payload = b'{"op":"send","id":"m%d","to":"bob","body":%d}' % (self._number, self._number)
            self._sent[self._number] = perf_counter()
            self.alice.transport.write(wire.publish(up, payload, self._number % 30_000 + 1))
            await asyncio.sleep(max(0.0, begin + (self._number - first + 1) / _PER_SECOND - perf_counter()))
        deadline = perf_counter() + _PATIENCE_S
        while perf_counter() < deadline and self._number not in self.bob.came:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        never = perf_counter() + _PATIENCE_S
        took = sorted(self.bob.came.get(number, never) - self._sent[number] for number in range(first, self._number + 1))
        return took[int(len(took) * 0.99)] * 1000

    def end(self) -> None:
        self.alice.leave()
        self.bob.leave()


@contextmanager
def _attacked(name: str, ports: attacks.Ports) -> Iterator[None]:
    """One that ends by itself is told as such, with what it said last, and those after it are made all the same."""
    command = [sys.executable, "-m", "bench.attacks", name, *map(str, ports)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stderr=said)
        try:
            yield
            ended = process.poll() is not None
        finally:
            process.kill()
            process.wait()
        if ended:
            said.seek(max(0, said.seek(0, os.SEEK_END) - _LAST_BYTES))
            tell(f"{name}: THE ATTACK HAS ENDED BY ITSELF: {said.read().decode(errors='replace').strip()}")


@contextmanager
def _crowded(port: int, members: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "bench.crowd", str(port), str(members)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise PeerError("the crowd did not come")
        yield
    finally:
        process.kill()
        process.wait()


class _Taker(BaseHTTPRequestHandler):
    """Takes every webhook."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said of it."""


@contextmanager
def _received(port: int) -> Iterator[None]:
    """Webhooks find a receiver as it should be."""
    with ThreadingHTTPServer(("127.0.0.1", port), _Taker) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            receiver.shutdown()
            thread.join()


def _ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def certificate(folder: Path) -> dict[str, str]:
    """A server's certificate in this folder, as settings."""
    made = trustme.CA().issue_cert("127.0.0.1")
    key, chain = folder / "key.pem", folder / "cert.pem"
    made.private_key_pem.write_to_path(key)
    made.cert_chain_pems[0].write_to_path(chain)
    return {"mqtt.tls.cert": str(chain), "mqtt.tls.key": str(key)}


async def _beside(
    folder: Path, kind: str, members: int, seconds: float, names: Sequence[str], more: Mapping[str, str]
) -> list[Row]:
    """The rows of these attacks, all on one server of this kind."""
    rows: list[Row] = []
    most = unready = 0
    data = folder / "data"
    websocket, mqtts, receiver = free_ports(3)
    ground = grounds.make(kind, folder, receiver)
    settings = {
        "limits.requests_per_second": "200",
        "websocket.bind": f"127.0.0.1:{websocket}",
        "mqtt.tls.bind": f"127.0.0.1:{mqtts}",
        "mqtt.plain_topics": '["plain/#"]',
        **certificate(folder),
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in ground.settings.items()},
        **more,
    }
    accounts = ground.passwords if kind == grounds.ACCOUNTS else None
    told = "" if kind == grounds.OPEN else f", {kind}"
    if kind in _PREPARED:
        await _prepare(data)
    with running(OURS, settings, data, accounts) as server, _crowded(server.port, members if kind in _PREPARED else 0):
        ports = attacks.Ports(server.port, websocket, server.http_port, mqtts, receiver)
        pair = _Pair()
        await pair.begin(grounds.reached(server, kind), ground.passwords)
        await pair.p99(_SETTLE_S)
        for name in names:
            with _received(receiver):
                quiet = await pair.p99(seconds)
            bound = max(3 * quiet, quiet + 50)
            before, stored = resident_bytes(server.pid), folder_bytes(data)
            forget_peak(server.pid)
            with _attacked(name, ports):
                await pair.p99(_CALM_S)
                start = usage(server.pid)
                attacked = await pair.p99(seconds)
                used = usage(server.pid) - start
                ready = _ready(server.http_port)
            await pair.p99(_CALM_S)
            peak = peak_bytes(server.pid)
            most = max(most, peak)
            grown, kept = peak - before, resident_bytes(server.pid) - before
            written = folder_bytes(data) - stored
            share = 100 * used.cpu_s / used.wall_s
            rows.append(Row(f"{name}: p99 of the pair before it", "ms", {OURS: quiet}))
            rows.append(Row(f"{name}: p99 of a pair", "ms", {OURS: attacked}, (Target(round(bound)),)))
            rows.append(Row(f"{name}: core taken", "%", {OURS: share}))
            rows.append(Row(f"{name}: memory grown", "MB", {OURS: grown / 1e6}))
            rows.append(Row(f"{name}: disk grown", "MB", {OURS: written / 1e6}))
            rows.append(Row(f"{name}: memory kept", "MB", {OURS: kept / 1e6}))
            over = "" if attacked <= bound else ", TOO MUCH"
            said = f"p99 {attacked:.1f} ms (quiet: {quiet:.1f}{over}), {share:.0f} % of a core, {grown / 1e6:+.0f} MB"
            said += f", {kept / 1e6:+.0f} MB a second later"
            said += f", {peak / 1e6:.0f} MB at its peak, {written / 1e6:+.0f} MB of disk"
            tell(f"{name}: {said}, {'ready' if ready else 'NOT READY'}")
            unready += not ready
        await pair.p99(_GIVEN_BACK_S)
        rows.append(Row(f"all{told}: memory at its peak", "MB", {OURS: most / 1e6}, (Target(round(_MOST_BYTES / 1e6)),)))
        rows.append(Row(f"all{told}: attacks under which it was not ready", "", {OURS: unready}, (Target(0),)))
        rows.append(Row(f"all{told}: memory afterwards", "MB", {OURS: resident_bytes(server.pid) / 1e6}))
        pair.end()
        begin = perf_counter()
    rows.append(Row(f"all{told}: stopped within", "s", {OURS: perf_counter() - begin}, (Target(10),)))
    begin = perf_counter()
    with running(OURS, {"auth.mode": "accounts" if accounts else "open", **settings}, data):
        rows.append(Row(f"all{told}: started within", "s", {OURS: perf_counter() - begin}))
    for row in rows[-5:]:
        tell(f"{row.what}: {row.values[OURS]:.1f} {row.unit}")
    return rows


async def compare(members: int, seconds: float, only: Sequence[str], more: Mapping[str, str]) -> list[Row]:
    """A row for each attack: the pair's p99 beside it; and what it did to the server's memory. `more`: settings of the server."""
    names = only or list(attacks.ATTACKS)
    rows: list[Row] = []
    for kind, some in grounds.grounds_of(names).items():
        with tempfile.TemporaryDirectory(prefix="mqtt-im-hostile-") as folder:
            rows += await _beside(Path(folder), kind, members, seconds, some, more)
    return rows
