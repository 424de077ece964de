"""What grows with a store: pages of who has much beside who has little, a start after a kill, lost projections, a check.

On the store's engine itself, in CPU time, without broker and sockets.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from msgspec import Raw

from bench.filling import Filler
from bench.meter import resident_bytes
from bench.pieces import do, job
from bench.report import Row, Target, tell
from bench.servers import OURS
from mqtt_im.core.rules import Who
from mqtt_im.load.bodies import bodies
from mqtt_im.process import collect_seldom
from mqtt_im.protocol import requests as rq
from mqtt_im.search.finding import FOREVER, Query
from mqtt_im.search.index import SearchIndex
from mqtt_im.search.words import phrases_of
from mqtt_im.store.queries import listings, pages, reach, visibility
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.opening import opener
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE, remove

LITTLE = "little"
_FEW, _MANY = 100, 10_000
_PAGE = 500
_BEHIND = 40_000
_TRIES = 7
_NOW = 1_700_000_000_000
_INDEXED = 1_000
_MEMBERS = 5_000
_MESSAGES_A_CROWD = 10_000
_CHECK = """
import os, sys
from pathlib import Path
from time import process_time
from bench.meter import peak_bytes
from mqtt_im.store.sqlite.check import check
begin = process_time()
if check(Path(sys.argv[1])).problems:
    sys.exit("there are problems")
print(process_time() - begin, peak_bytes(os.getpid()))
"""


def compare(messages: int, users: int, keep: Path | None = None) -> list[Row]:
    """Figures of a store with so many messages between pairs drawn at random from so many users.

    `keep` is a folder for the filled store, so that a later run needn't fill it.
    """
    collect_seldom()  # as in the server
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        data_dir = Path(folder) / "store"
        make = opener(data_dir, synchronous="off")
        dice = random.Random(2)
        if keep is not None and keep.exists():
            shutil.copytree(keep, data_dir)
        else:
            data_dir.mkdir()
            _fill(make, messages, users, dice)
            if keep is not None:
                shutil.copytree(data_dir, keep)
        engine = make()
        try:
            tell("pages of who has much and who has little")
            rows = _pages(engine)
            tell("a start after a kill")
            rows.append(_start_after_kill(engine, data_dir, dice, users))
            last = engine.last
        finally:
            engine.close()
        tell(f"lost projections of {last:,} rows")
        remove(data_dir / PROJECTION_FILE)
        begin = process_time()
        make().close()
        rebuilt = process_time() - begin
        tell(f"a check of {last:,} rows")
        checked, memory = _check(data_dir)
        rows += _searches(make, data_dir)
        rows += _crowds(make, max(1, messages // _MESSAGES_A_CROWD), users)
    target = Target(40_000, more_is_better=True)
    rows.append(Row("lost projections made anew: rows for a CPU second", "1/s", {OURS: last / rebuilt}, (target,)))
    rows.append(Row("store check: CPU for a row", "µs", {OURS: checked / last * 1e6}, (Target(60),)))
    rows.append(Row("store check: memory at its peak", "MB", {OURS: memory / 1e6}))
    return rows


def _fill(make: Callable[[], Engine], messages: int, users: int, dice: random.Random) -> None:
    engine = make()
    filler = Filler(engine, _NOW)
    filler.say([(who, f"{who}-{number}") for who, count in (("few", _FEW), ("many", _MANY)) for number in range(count)])
    filler.say([("few", "few-0")] * _PAGE)
    filler.say([(f"u{dice.randrange(users)}", f"u{dice.randrange(users)}") for _ in range(messages)])
    engine.close()


def _crowds(make: Callable[[], Engine], count: int, users: int) -> list[Row]:
    """So many groups of 5,000 are made, and get a message each, one after the other, twice."""
    tell(f"{count} groups of {_MEMBERS:,}")
    engine = make()
    before = resident_bytes(os.getpid())
    for number in range(count):
        members = [f"u{(number * 977 + member * 19) % users}" for member in range(_MEMBERS - 1)]
        do(engine, job(rq.GroupCreate(id=f"make{number}", group=f"#size{number}", members=members)))
        _beside(engine)
    pieces: list[float] = []
    for number in range(2 * count):
        pieces += do(engine, job(rq.Send(id=f"say{number}", to=f"#size{number % count}", body=Raw(b'"x"'))))
        _beside(engine)
    grown = resident_bytes(os.getpid()) - before
    engine.close()
    title = f"{count} groups of {_MEMBERS:,}"
    return [
        Row(f"{title}: memory grown", "MB", {OURS: grown / 1e6}),
        Row(f"{title}: a message into each in turn, CPU of the ledger's thread", "ms", {OURS: sum(pieces) / 2 / count * 1000}),
        Row(f"{title}: the longest piece of it", "ms", {OURS: max(pieces) * 1000}, (Target(10),)),
    ]


def _beside(engine: Engine) -> None:
    """What the writer has done before the next job for many."""
    engine.side_work(1)
    while engine.crowded:
        engine.side_work(1)


def _check(data_dir: Path) -> tuple[float, int]:
    """CPU seconds, and bytes of memory at the peak, of a check in a process of its own."""
    command = [sys.executable, "-c", _CHECK, str(data_dir)]
    seconds, memory = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split()
    return float(seconds), int(memory)


def _searches(make: Callable[[], Engine], data_dir: Path) -> list[Row]:
    """Who has many conversations looks for a frequent word in all of them, in an index of everything."""
    tell("a search by who has much")
    engine = make()
    index = SearchIndex(data_dir, engine.epoch)
    try:
        while index.follow(_INDEXED):
            pass
        within, place, done, steps = reach.Reach(), reach.Place(), False, list[float]()
        while not done:
            begin = process_time()
            step = reach.learn(engine, "many", place)
            place, done = step.place, step.done
            within.add(step.parts)
            steps.append(process_time() - begin)
        query = Query(phrases_of(bodies()[0].decode().split()[0]), within)
        times = []
        for _ in range(_TRIES):
            begin = process_time()
            index.find(query, FOREVER, 50, float("inf"))
            times.append(process_time() - begin)
    finally:
        index.close()
        engine.close()
    title = f"search in {_MANY:,} conversations"
    return [
        Row(f"{title}: learning them, all {len(steps)} steps", "ms", {OURS: sum(steps) * 1000}),
        Row(f"{title}: the longest step", "ms", {OURS: max(steps) * 1000}, (Target(20),)),
        Row(f"{title}: the first time", "ms", {OURS: times[0] * 1000}, (Target(20),)),
        Row(f"{title}: again", "ms", {OURS: min(times) * 1000}, (Target(20),)),
    ]


def _start_after_kill(engine: Engine, data_dir: Path, dice: random.Random, users: int) -> Row:
    """Rows that were committed, and are in memory alone but for the log, are taken from the log by the next server."""
    pairs = [(f"u{dice.randrange(users)}", f"u{dice.randrange(users)}") for _ in range(_BEHIND)]
    filler = Filler(engine, _NOW)
    filler.say(pairs, written=False)
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        killed = Path(folder) / "killed"
        shutil.copytree(data_dir, killed)
        begin = process_time()
        started = opener(killed, synchronous="off")()
        taken = process_time() - begin
        started.close()
    return Row(f"start after a kill: CPU for {_BEHIND:,} rows behind", "s", {OURS: taken}, (Target(1),))


def _pages(engine: Engine) -> list[Row]:
    looks: list[tuple[str, Callable[[str], Any], float]] = [
        ("convs, a page of 50", lambda user: listings.convs(engine, Who(user, "pc", _NOW), rq.Convs(), 50, 1 << 24), 3),
        ("who shares a conversation", lambda user: visibility.shares_conversation(engine, user, "nobody"), 1),
    ]
    history = rq.History(conv="few:few-0")
    rows = [
        Row(
            f"history, a page of {_PAGE}",
            "ms",
            {OURS: _best(lambda user: pages.history(engine, Who(user, "pc", _NOW), history, _PAGE, 1 << 24), "few")},
            (Target(5),),
        )
    ]
    for what, look, most in looks:
        values = {column: _best(look, user) for column, user in ((LITTLE, "few"), (OURS, "many"))}
        title = f"{what}: {_MANY:,} conversations beside {_FEW}"
        rows.append(Row(title, "ms", values, (Target(most), Target(1.5, over="×")), LITTLE))
    return rows


def _best(look: Callable[[str], Any], user: str) -> float:
    times = []
    for _ in range(_TRIES):
        begin = process_time()
        look(user)
        times.append(process_time() - begin)
    return min(times) * 1000
