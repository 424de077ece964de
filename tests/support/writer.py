"""A process that does nothing but write to a store, and says what it was told is done: `python -m tests.support.writer DIR RUN`.

Each line of its output is JSON: the id of a request that is done, and its `conv`, `seq` and `pos`. A line is written when the
ledger has reported the request, so it must be true of the folder from then on, whatever becomes of the process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path

from msgspec import Raw

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol.requests import Send
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import flusher
from mqtt_im.store.sqlite.opening import open_ledger

USERS = ("ann", "bob", "cat", "dan")
AT_ONCE = 3
"""Requests that each user has on the way."""


def request_of(number: int, run: str) -> tuple[str, Send]:
    """The request with this number, the same each time: who sends it, and what."""
    user = USERS[number % len(USERS)]
    to = USERS[(number // len(USERS)) % len(USERS)]
    return user, Send(id=f"{run}-{number}", to=to, body=Raw(b'"%d"' % number), key="k" if number % 5 == 0 else None)


async def write(data_dir: Path, run: str) -> None:
    """Write until somebody ends the process."""
    ledger = open_ledger(data_dir)
    await ledger.start()
    numbers = itertools.count()

    def ask() -> None:
        user, request = request_of(next(numbers), run)
        ledger.submit(RequestJob(Who(user, "pc", 0), request, done))

    def done(job: RequestJob) -> None:
        assert job.refusal is None and job.commits is not None
        record = job.commits[0].record
        assert isinstance(record, Message)
        os.write(1, json.dumps([record.by, record.id, record.conv, record.seq, record.pos]).encode() + b"\n")
        ask()

    for _ in range(AT_ONCE * len(USERS)):
        ask()
    await asyncio.Event().wait()


if __name__ == "__main__":
    flusher.FLUSH_ROWS, flusher.SLICE_ROWS = 60, 10  # so that a bulk write is always on its way
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
