"""What one request takes of the ledger's thread at once: the longest piece, and all of them; on a store's engine itself.

Whatever else there is gets its turn between two pieces, so the longest is what others wait for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import thread_time
from typing import Final

from msgspec import Raw

from bench.filling import Filler
from bench.report import Row, Target, tell
from bench.servers import OURS
from mqtt_im.core.rules import Who
from mqtt_im.process import collect_seldom
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Later
from mqtt_im.store.jobs.erasing import CONVS, EraseJob, TakeBackJob, conversations
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.opening import opener

_NOW: Final = 1_700_000_000_000
_MOST_MS: Final = 10
_ROUNDS: Final = 3
_NOTES: Final = 10_000

Pieces = list[float]
"""Seconds of each."""


def compare(members: int, convs: int) -> list[Row]:
    """For groups of so many, and a user with so many conversations."""
    collect_seldom()  # as in the server
    rows: list[Row] = []

    def told(what: str, pieces: Pieces) -> None:
        rows.append(Row(f"{what}: longest piece", "ms", {OURS: max(pieces) * 1000}, (Target(_MOST_MS),)))
        rows.append(Row(f"{what}: all {len(pieces)}", "ms", {OURS: sum(pieces) * 1000}))

    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        for name, measure in (("groups", _groups), ("erased", _erased), ("notes", _notes)):
            tell(f"pieces of the ledger's thread: {name}")
            make = opener(_made(Path(folder) / name), synchronous="off")
            for what, pieces in measure(make, members if name == "groups" else convs):
                told(what, pieces)
    return rows


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _groups(make: Callable[[], Engine], members: int) -> Sequence[tuple[str, Pieces]]:
    engine = make()
    names = [[f"n{number}.{member}" for member in range(members - 1)] for number in range(_ROUNDS)]
    anew = [do(engine, _create(f"#a{number}", names[number])) for number in range(_ROUNDS)]
    written = _flush(engine)
    known = [do(engine, _create(f"#b{number}", names[number])) for number in range(_ROUNDS)]
    engine.close()
    engine = make()
    cold = [do(engine, _send(f"#a{number}", f"cold{number}")) for number in range(_ROUNDS)]
    warm = [do(engine, _send(f"#a{number}", f"warm{number}")) for number in range(_ROUNDS)]
    left = [do(engine, job(rq.GroupLeave(id=f"leave{number}", group=f"#a{number}"))) for number in range(_ROUNDS)]
    engine.close()
    return [
        (f"a group of {members:,} users whom nobody knows", _median(anew)),
        (f"a group of {members:,} known users", _median(known)),
        (f"{_ROUNDS} such groups written into the projections", written),
        (f"a message to a group of {members:,} that is not in memory", _median(cold)),
        (f"a message to a group of {members:,}", _median(warm)),
        (f"the owner leaves a group of {members:,}", _median(left)),
    ]


def _erased(make: Callable[[], Engine], convs: int) -> Sequence[tuple[str, Pieces]]:
    engine = make()
    filler = Filler(engine, _NOW)
    filler.say([("many", f"p{number}") for number in range(convs)])
    filler.say([(f"p{number}", "many") for number in range(convs)] * 9)
    engine.close()
    engine = make()
    names, _ = conversations(engine, "many")
    pieces: Pieces = []
    for start in range(0, len(names), CONVS):
        pieces += do(engine, EraseJob("many", names[start : start + CONVS], _nobody))
    engine.close()
    return [(f"a user with {convs:,} conversations and {10 * convs:,} items is erased", pieces)]


def _notes(make: Callable[[], Engine], _: int) -> Sequence[tuple[str, Pieces]]:
    engine = make()
    Filler(engine, _NOW).say([("many", "many")] * _NOTES)
    (what,), pieces = conversations(engine, "many")[1], list[float]()
    while what.first <= what.last:
        part = TakeBackJob("many", what, _nobody)
        pieces += do(engine, part)
        what = what._replace(first=part.following)
    engine.close()
    return [(f"{_NOTES:,} notes to oneself are taken back", pieces)]


def do(engine: Engine, one: Job) -> Pieces:
    """The job is done as the writer does it: again with each batch until it is whole."""
    pieces: Pieces = []
    whole = False
    while not whole:
        engine.now = _NOW
        begin = thread_time()
        with engine.changing:
            engine.prefetch([one])
            try:
                one.prepare(engine)
                whole = True
            except Later:
                pass
        engine.commit()
        if whole:
            one.finish(engine)
        pieces.append(thread_time() - begin)
    return pieces


def _flush(engine: Engine) -> Pieces:
    """Everything is in the projections; each step of that."""
    pieces: Pieces = []
    while engine.state.live.records or engine.flusher.writing:
        begin = thread_time()
        engine.flusher.step(hurry=True)
        pieces.append(thread_time() - begin)
    return pieces


def _median(tries: list[Pieces]) -> Pieces:
    return sorted(tries, key=max)[len(tries) // 2]


def _create(group: str, members: list[str]) -> Job:
    return job(rq.GroupCreate(id=f"make{group}", group=group, members=members))


def _send(group: str, request_id: str) -> Job:
    return job(rq.Send(id=request_id, to=group, body=Raw(b'"x"')))


def job(request: rq.Request) -> RequestJob:
    """A request of the owner of all groups."""
    return RequestJob(Who("owner", "pc", _NOW), request, _nobody)


def _nobody(_: object) -> None:
    """Nobody waits."""
