"""Everybody comes back within a second, each at the cost of an argon2, while pairs that stayed exchange messages.

Rounds: with an empty cache, as after a restart; with the cache warm; with an empty cache while another address hammers
with wrong passwords; with an empty cache and clients that lose patience. A client connects, waits for CONNACK, subscribes
to its inbox, and is served. One that is refused, cut off or out of patience comes back after about a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.beside import Beside, exchanging
from bench.meter import peak_bytes, resident_bytes, usage
from bench.report import Row
from bench.servers import OURS, Server, running
from mqtt_im.accounts import passwords
from mqtt_im.accounts.table import Accounts
from mqtt_im.load import wire
from mqtt_im.load.figures import percentile
from mqtt_im.load.visitors import CUT, SILENT, Tally, Visitor, visit

COLD, WARM, GUESSED, IMPATIENT = "1 cold", "2 warm", "3 guesser", "4 impatient"
_PASSWORD = "correct horse battery staple"
_PAIRS = 4
_MESSAGES_PER_SECOND = 50.0
_QUIET_S = 5.0
_LONGEST_S = 600.0
_GUESSERS = 20
_GUESSER = "127.0.0.2"
_SETTINGS = {"auth.mode": "accounts"}

Figures = dict[tuple[str, str], float]
"""(name, unit) → value."""


@dataclass(frozen=True)
class Crowd:
    """Who comes."""

    clients: int = 5_000
    patience_s: float = 10.0
    """How long a client waits for CONNACK."""
    impatience_s: float = 3.0
    """The same in the last round."""


async def _guess(server: Server, users: Sequence[str], guesses: Counter[str], numbers: Iterator[int]) -> None:
    """Hammer with wrong passwords until cancelled."""
    for number in numbers:
        visitor = Visitor()
        user = users[number % len(users)]
        guesses[await visitor.knock(server, wire.connect("guess", user, f"guess{number}"), 60.0, _GUESSER)] += 1
        visitor.close()


async def _round(
    server: Server, pairs: Beside, users: Sequence[str], patience_s: float, *, guessed: bool = False
) -> tuple[Figures, list[Visitor]]:
    dice = random.Random(3)
    guesses: Counter[str] = Counter()
    numbers = count()
    guessers = [asyncio.ensure_future(_guess(server, users, guesses, numbers)) for _ in range(_GUESSERS if guessed else 0)]
    tally = Tally()
    pairs.latencies()
    load = os.getloadavg()[0]
    before, begin = usage(server.pid), time.perf_counter()
    visits = [
        asyncio.ensure_future(visit(server, user, _PASSWORD, tally, patience_s, begin + number / len(users), dice))
        for number, user in enumerate(users)
    ]
    done, waiting = await asyncio.wait(visits, timeout=_LONGEST_S)
    used = usage(server.pid) - before
    latencies = pairs.latencies()
    for task in (*guessers, *waiting):
        task.cancel()
    served, connack = sorted(tally.served_s), sorted(tally.connack_s)
    figures = {
        ("the last is served after", "s"): max(served, default=0.0),
        ("half are served after", "s"): percentile(served, 0.5),
        ("never served", "clients"): float(len(waiting)),
        ("try → CONNACK 0, p50", "s"): percentile(connack, 0.5),
        ("try → CONNACK 0, p99", "s"): percentile(connack, 0.99),
        ("pairs beside it: p50", "ms"): percentile(latencies, 0.5) * 1000,
        ("pairs beside it: p99", "ms"): percentile(latencies, 0.99) * 1000,
        ("pairs beside it: longest", "ms"): max(latencies, default=0.0) * 1000,
        ("server CPU", "s"): used.cpu_s,
        ("server CPU a client", "ms"): used.cpu_s * 1000 / len(users),
        ("others on the machine: load average before it", "processes"): load,
        ("generator busy", "%"): 100 * used.generator_cpu_s / used.wall_s,
        ("memory of the server at its peak", "MB"): peak_bytes(server.pid) / 1e6,
        ("memory of the server afterwards", "MB"): resident_bytes(server.pid) / 1e6,
    }
    for answer in sorted({"refused 3", SILENT, CUT, *tally.failed}):
        figures[f"tries that ended {answer}", "tries"] = tally.failed[answer]
    for answer, times in guesses.items():
        figures[f"guesses that ended {answer}", "tries"] = times
    return figures, [task.result() for task in done]


def make_accounts(folder: Path, users: Sequence[str]) -> None:
    """An account for each, all with one password and one hash of it: each login still costs a verification of its own."""
    Accounts(folder).close()
    password_hash = passwords.hash_password(_PASSWORD.encode())
    with sqlite3.connect(folder / "accounts.db") as db:
        db.executemany("INSERT INTO account VALUES (?, ?, 0)", [(user, password_hash) for user in users])
        db.executemany("INSERT INTO change (name, what, token) VALUES (?, 'added', '')", [(user,) for user in users])
    db.close()


async def _server_life(
    folder: Path, crowd: Crowd, users: Sequence[str], rounds: Sequence[str], settings: Mapping[str, str]
) -> dict[str, Figures]:
    """The rounds, one after the other, on one server that has just been started."""
    found: dict[str, Figures] = {}
    with running(OURS, _SETTINGS | dict(settings), data=folder, pinned=False) as server:
        names = [(f"a{number}", f"b{number}") for number in range(_PAIRS)]
        with exchanging(server, names, _PASSWORD, _MESSAGES_PER_SECOND) as pairs:
            await asyncio.sleep(_QUIET_S)
            quiet = pairs.latencies()
            before = {
                ("pairs before it: p50", "ms"): percentile(quiet, 0.5) * 1000,
                ("pairs before it: p99", "ms"): percentile(quiet, 0.99) * 1000,
            }
            for name in rounds:
                patience_s = crowd.impatience_s if name == IMPATIENT else crowd.patience_s
                print(f"  {name} …", file=sys.stderr, flush=True)
                figures, visitors = await _round(server, pairs, users, patience_s, guessed=name == GUESSED)
                found[name] = before | figures
                for visitor in visitors:
                    visitor.close()
                await asyncio.sleep(2)
    return found


async def compare(crowd: Crowd, settings: Mapping[str, str]) -> list[Row]:
    """All rounds; each but the second begins with a server that was started just before."""
    users = [f"visitor{number}" for number in range(crowd.clients)]
    rows: dict[tuple[str, str], Row] = {}
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as name:
        folder = Path(name)
        make_accounts(folder, [*users, *(f"{side}{number}" for number in range(_PAIRS) for side in "ab")])
        for rounds in ((COLD, WARM), (GUESSED,), (IMPATIENT,)):
            for column, figures in (await _server_life(folder, crowd, users, rounds, settings)).items():
                for (what, unit), value in figures.items():
                    title = f"{crowd.clients:,} logins at once: {what}"
                    rows.setdefault((title, unit), Row(title, unit)).values[column] = value
    return list(rows.values())
