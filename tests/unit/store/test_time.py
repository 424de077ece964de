"""The time of the log does not go back, whatever the clock does (INV-8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.clock import Clock
from mqtt_im.core.records import decode
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.requests import Send
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import belongings
from mqtt_im.store.sqlite.opening import open_ledger
from tests.support.store import SqliteStore


def send(store: SqliteStore, now: int) -> None:
    job = RequestJob(Who("ann", "tel", 0), Send(to="bob", body=Raw(b"1")), lambda _: None)
    store.run([job], now)
    assert job.refusal is None


@pytest.mark.parametrize("end", ["close", "crash"])
@pytest.mark.parametrize("lose", [False, True])
def test_a_clock_that_is_set_back_stands_still_over_a_restart_too(tmp_path: Path, end: str, lose: bool) -> None:
    store = SqliteStore(tmp_path)
    send(store, 5_000)
    send(store, 3_000)
    getattr(store, end)()
    store.reopen(lose)
    send(store, 1_000)
    send(store, 6_000)
    assert [decode(row).ts for _, row in store.engine.log.after(0)] == [5_000, 5_000, 5_000, 6_000]
    store.close()


START = 1_000_000_000
HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path, Limits(edit_window_s=60))
    yield found
    found.close()


def say(store: SqliteStore, wall: int, passed: int, **fields: Any) -> None:
    job = RequestJob(Who("ann", "pc", 0), Send(to="bob", body=Raw(b"1"), **fields), lambda _: None)
    store.run([job], START + wall, START + passed)
    assert job.refusal is None


def offered(store: SqliteStore, wall: int, passed: int) -> list[str]:
    """The op and, of a message, the `ts` of what bob's device is offered then."""
    job = FetchJob("bob", 0, 10, 10**6, lambda _: None)
    store.run([job], START + wall, START + passed)
    return [json.loads(entry.item(pos, "bob", "tel", START + passed))["op"] for pos, entry in job.entries]


def changed(store: SqliteStore, seq: int, wall: int, passed: int) -> str:
    """What becomes of an edit at that time."""
    request = rq.Edit(id=f"e{seq}-{wall}-{passed}", conv="ann:bob", seq=seq, body=Raw(b"2"))
    job = RequestJob(Who("ann", "pc", 0), request, lambda _: None)
    store.run([job], START + wall, START + passed)
    return job.refusal.code if job.refusal else "ok"


@pytest.mark.parametrize("before", [-HOUR, -900, 0, 900, HOUR])
@pytest.mark.parametrize("after", [-2 * HOUR, -1_500, 0, 1_500, 2 * HOUR])
def test_a_time_to_live_runs_by_real_time_however_the_clock_is_set(store: SqliteStore, before: int, after: int) -> None:
    """`before` and `after`: by how much the wall clock is wrong when the command is sent, and from then on."""
    say(store, HOUR, 0)  # `ts` stands ahead
    say(store, before, 1_000, ttl=3)
    assert offered(store, after + 3_900, 3_900) == ["msg", "msg"]
    assert offered(store, after + 4_100, 4_100) == ["msg", "void"]


@pytest.mark.parametrize("before", [-HOUR, 0, HOUR])
@pytest.mark.parametrize("after", [-2 * HOUR, 0, 2 * HOUR])
def test_the_edit_window_is_real_time_however_the_clock_is_set(store: SqliteStore, before: int, after: int) -> None:
    say(store, before, 0)
    assert changed(store, 1, after + 59_000, 59_000) == "ok"
    assert changed(store, 1, after + 61_500, 61_500) == "forbidden"


def test_a_device_was_last_seen_when_it_was_whatever_the_clock_said_then(store: SqliteStore) -> None:
    """The clock stood an hour ahead while the device was seen, and is right now, ten seconds later."""
    hello = RequestJob(Who("ann", "pc", 0), rq.Hello(), lambda _: None)
    store.run([hello], START + HOUR, START)
    assert store.see(lambda view: belongings.last_seen(view, "ann"), START + HOUR + 5, START + 5) == START + HOUR
    assert store.see(lambda view: belongings.last_seen(view, "ann"), START + 10_000, START + 10_000) == START


class Machine:
    """Its two clocks, in seconds."""

    def __init__(self) -> None:
        self.wall, self.counted, self.boot = 1_000_000.0, 500.0, "first"

    def passes(self, seconds: float, set_by: float = 0.0) -> None:
        self.wall += seconds + set_by
        self.counted += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.counted, self.boot)

    def restarted(self, clock: Clock, mark: bytes | None = None) -> Clock:
        again = self.clock()
        again.resume(mark or clock.mark())
        return again


@pytest.mark.parametrize("set_by", [-5_000, -1, 0, 1, 5_000])
def test_the_steady_time_is_what_really_passes_while_the_process_lives(set_by: float) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.steady()
    machine.passes(60, set_by)
    assert clock.steady() - before == 60_000 and clock.now().ahead == set_by * 1000


@pytest.mark.parametrize(("set_by", "passed"), [(-5_000, 90), (0, 90), (7, 97)])
def test_over_a_restart_the_larger_answer_counts(set_by: float, passed: int) -> None:
    """Between the mark and the next process a minute and a half have passed, and the wall clock was set."""
    machine = Machine()
    clock = machine.clock()
    before, mark = clock.steady(), clock.mark()
    machine.passes(90, set_by)
    assert machine.restarted(clock, mark).steady() - before == passed * 1000


@pytest.mark.parametrize(("set_by", "passed"), [(-5_000, 0), (0, 90), (7, 97)])
def test_after_another_boot_the_wall_clock_alone_tells(set_by: float, passed: int) -> None:
    machine = Machine()
    clock = machine.clock()
    before, mark = clock.steady(), clock.mark()
    machine.passes(90, set_by)
    machine.boot, machine.counted = "second", 3.0
    assert machine.restarted(clock, mark).steady() - before == passed * 1000


def test_a_clock_that_is_wrong_all_along_costs_nothing(tmp_path: Path) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.passes(1, -4_000)
    again = machine.restarted(clock)
    machine.passes(10)
    assert again.now().ahead == -4_000_000 and again.wall() == int(machine.wall * 1000)


@pytest.mark.parametrize("mark", [b"", b"no mark", b'{"steady":1}', b"[1,2]"])
def test_what_is_no_mark_is_none(mark: bytes) -> None:
    machine = Machine()
    clock = machine.clock()
    clock.resume(mark)
    assert clock.steady() == clock.wall()


def test_the_store_knows_how_the_clocks_stood(tmp_path: Path) -> None:
    """Also when a clock was set while the server ran, and the process was killed: the first store is not closed."""

    async def main() -> None:
        machine = Machine()
        ledger = open_ledger(tmp_path, clock=machine.clock())
        await ledger.start()
        machine.passes(5, 3_600)
        await ledger.probe()
        await ledger.probe()  # what is done beside the first one is over
        machine.passes(20, -7_200)
        other = open_ledger(tmp_path, clock=machine.clock())
        await other.start()
        assert other.clock.steady() == ((1_000_000 + 25) * 1000)
        await other.stop()
        await ledger.stop()

    asyncio.run(main())
