"""What grows with a store: pages of who has much beside who has little, a start after a kill, lost projections, a check.

On the store's engine itself, in CPU time, without broker and sockets.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from bench.filling import Filler
from bench.report import Row, Target, tell
from bench.servers import OURS
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store import listings, queries
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.files import PROJECTION_FILE, remove
from mqtt_im.store.sqlite.opening import opener

LITTLE = "little"
_FEW, _MANY = 100, 10_000
_PAGE = 500
_BEHIND = 40_000
_TRIES = 7
_NOW = 1_700_000_000_000


def compare(messages: int, users: int) -> list[Row]:
    """Figures of a store with so many messages between pairs drawn at random from so many users."""
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        data_dir = Path(folder)
        make = opener(data_dir, synchronous="off")
        engine = make()
        filler = Filler(engine, _NOW)
        filler.say([(who, f"{who}-{number}") for who, count in (("few", _FEW), ("many", _MANY)) for number in range(count)])
        dice = random.Random(2)
        filler.say([("few", "few-0")] * _PAGE)
        filler.say([(f"u{dice.randrange(users)}", f"u{dice.randrange(users)}") for _ in range(messages)])
        engine.close()
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
        begin = process_time()
        check(data_dir)
        checked = process_time() - begin
    target = Target(40_000, more_is_better=True)
    rows.append(Row("lost projections made anew: rows for a CPU second", "1/s", {OURS: last / rebuilt}, (target,)))
    rows.append(Row("store check: CPU for a row", "µs", {OURS: checked / last * 1e6}, (Target(60),)))
    return rows


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
        ("who shares a conversation", lambda user: queries.shares_conversation(engine, user, "nobody"), 1),
    ]
    history = rq.History(conv="few:few-0")
    rows = [
        Row(
            f"history, a page of {_PAGE}",
            "ms",
            {OURS: _best(lambda user: queries.history(engine, Who(user, "pc", _NOW), history, _PAGE, 1 << 24), "few")},
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
