"""What grows with a store: pages of who has much beside who has little, and how fast lost projections are made and checked.

On the store's engine itself, in CPU time, without broker and sockets.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from msgspec import Raw

from bench.report import Row, Target
from bench.servers import OURS
from mqtt_im.core.rules import Who
from mqtt_im.load.bodies import bodies
from mqtt_im.protocol import requests as rq
from mqtt_im.store import listings, queries
from mqtt_im.store.jobs import RequestJob
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.models import PROJECTION_FILE, remove
from mqtt_im.store.sqlite.opening import opener

LITTLE = "little"
_FEW, _MANY = 100, 10_000
_BATCH = 200
_TRIES = 7
_NOW = 1_700_000_000_000


def _nothing(_: object) -> None:
    """Nobody waits."""


class _Filler:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._texts = [Raw(b'"%b"' % body) for body in bodies()]
        self._dice = random.Random(1)
        self._count = 0

    def say(self, pairs: list[tuple[str, str]]) -> None:
        """A message of each first one to the second."""
        engine = self._engine
        for start in range(0, len(pairs), _BATCH):
            part = pairs[start : start + _BATCH]
            engine.now = _NOW
            engine.state.prefetch([(user, None, to) for user, to in part])
            for user, to in part:
                self._count += 1
                send = rq.Send(id=f"s{self._count}", to=to, body=self._dice.choice(self._texts))
                RequestJob(Who(user, "pc", _NOW), send, _nothing).prepare(engine)
            engine.commit()
            engine.side_work(len(part))


def compare(messages: int, users: int) -> list[Row]:
    """Figures of a store with so many messages between pairs drawn at random from so many users."""
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        data_dir = Path(folder)
        make = opener(data_dir, synchronous="off")
        engine = make()
        filler = _Filler(engine)
        filler.say([(who, f"{who}-{number}") for who, count in (("few", _FEW), ("many", _MANY)) for number in range(count)])
        dice = random.Random(2)
        filler.say([(f"u{dice.randrange(users)}", f"u{dice.randrange(users)}") for _ in range(messages)])
        engine.close()
        engine = make()
        try:
            rows = _pages(engine)
            last = engine.last
        finally:
            engine.close()
        remove(data_dir / PROJECTION_FILE)
        begin = process_time()
        make().close()
        rebuilt = process_time() - begin
        begin = process_time()
        check(data_dir)
        checked = process_time() - begin
    target = Target(40_000, more_is_better=True)
    rows.append(Row("lost projections made anew: rows for a CPU second", "1/s", {OURS: last / rebuilt}, (target,)))
    rows.append(Row("store check: CPU for a row", "µs", {OURS: checked / last * 1e6}, (Target(60),)))
    return rows


def _pages(engine: Engine) -> list[Row]:
    looks: list[tuple[str, Callable[[str], Any], float]] = [
        ("convs, a page of 50", lambda user: listings.convs(engine, Who(user, "pc", _NOW), rq.Convs(), 50, 1 << 24), 3),
        ("who shares a conversation", lambda user: queries.shares_conversation(engine, user, "nobody"), 1),
    ]
    rows = []
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
