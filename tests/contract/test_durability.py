"""INV-1: what was reported as done is on disk, whenever the process is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.check import check
from tests.support.store import SqliteStore
from tests.support.writer import AT_ONCE, USERS, request_of

ROOT = Path(__file__).parents[2]
ROUNDS = 5
MOST = 400
"""Lines before the process is killed, at most."""


def write_until_killed(data_dir: Path, run: str, lines: int) -> list[str]:
    """What a writer has reported before it was killed, a little after so many lines."""
    command = [sys.executable, "-m", "tests.support.writer", str(data_dir), run]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = [line for line, _ in zip(process.stdout, range(lines), strict=False)]
        finally:
            process.kill()
        told += process.stdout.readlines()  # what had left the process before it ended
        assert len(told) >= lines, "the writer has failed by itself"
    return [line for line in told if line.endswith("\n")]


@pytest.mark.parametrize("lose_projection", [False, True])
def test_what_was_reported_is_there_whenever_the_process_is_killed(tmp_path: Path, lose_projection: bool) -> None:
    """INV-1, and with it INV-2 to INV-5: numbers go on without a gap, ids are remembered, projections are rebuilt."""
    chance = random.Random(20)
    reported: dict[tuple[str, str], list[object]] = {}
    for run in map(str, range(ROUNDS)):
        for line in write_until_killed(tmp_path, run, chance.randrange(1, MOST)):
            user, request_id, conv, seq, pos = json.loads(line)
            reported[user, request_id] = [conv, seq, pos]

        store = SqliteStore(tmp_path)
        if lose_projection:
            store.crash()
            store.reopen(lose_projection=True)
        for (user, request_id), told in reported.items():
            record = store.engine.state.request(user, request_id)
            assert isinstance(record, Message)
            assert [record.conv, record.seq, record.pos] == told

        # The client repeats what it had on the way: what was kept is a repeat, what was not is done now, once.
        last = max(int(name.partition("-")[2]) for _, name in reported if name.startswith(f"{run}-"))
        for number in range(last + 2 * AT_ONCE * len(USERS)):
            user, request = request_of(number, run)
            known = store.engine.state.request(user, str(request.id)) is not None
            job = RequestJob(Who(user, "pc", 0), request, lambda _: None)
            store.run([job], 0)
            assert job.refusal is None
            assert (job.commits is None) == known
            if not known:
                assert (user, request.id) not in reported
        store.close()
        assert check(tmp_path).problems == []
