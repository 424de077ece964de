"""Jobs for many wait while what was committed for many before has not been offered to all of them."""

from __future__ import annotations

from pathlib import Path

from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.threads import outflow, weighing
from mqtt_im.store.threads.gathering import MOST_PASSED
from mqtt_im.store.threads.outflow import MOST, PATIENCE_S, Outflow
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000


def test_it_is_full_until_little_is_left_and_whoever_waits_is_called_once() -> None:
    calls: list[int] = []
    flow = Outflow(lambda: calls.append(1), lambda: 0.0)
    flow.add(MOST)
    assert not flow.full()
    flow.add(5_000)
    flow.done(1)
    assert not calls, "nobody waits"
    assert flow.full() and flow.wait_s() == PATIENCE_S
    flow.done(4_998)
    assert flow.full() and not calls
    flow.done(1)
    assert calls == [1] and not flow.full()
    flow.done(MOST)
    assert calls == [1]


def test_nobody_waits_for_ever_nor_for_a_loop_that_has_ended() -> None:
    now = 0.0
    flow = Outflow(lambda: None, lambda: now)
    flow.add(MOST + 1)
    let_pass = 0
    for _ in range(100):
        if not flow.full():
            let_pass += 1
            assert flow.overdue and not flow.full(), "until one has passed"
            flow.passed()
        now += PATIENCE_S / 4
    assert 15 <= let_pass <= 25
    flow.stop()
    assert not flow.full()


class World:
    """A ledger whose batches are run by hand."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder)
        self.writer, self.gathering = self.store.ledger.writer, self.store.ledger.gathering
        members = [f"m{number}" for number in range(weighing.LONG + 1)]
        self.store.run([self.ask("ann", rq.GroupCreate(id="g", group="#g", members=members))], NOW)

    @staticmethod
    def ask(user: str, request: rq.Request) -> RequestJob:
        return RequestJob(Who(user, "pc", 0), request, lambda _: None)

    def crowd(self, user: str) -> RequestJob:
        return self.ask(user, rq.Send(to="#g", body=Raw(b"1")))

    def one(self, user: str) -> RequestJob:
        return self.ask(user, rq.Send(to="bob", body=Raw(b"1")))

    def batch(self, *came: Job) -> list[str]:
        self.gathering._queue.put(list(came))
        batch = self.gathering.gather(self.store.engine, False)
        if batch:
            self.writer._work(self.store.engine, batch)
        return [job.line() for job in batch]


def test_what_is_for_many_waits_for_what_is_still_to_be_told_and_lets_others_pass(tmp_path: Path) -> None:
    world = World(tmp_path)
    flow = world.gathering.outflow
    flow.add(MOST + 1)
    assert world.batch(world.crowd("ann")) == [], "also where it comes alone"
    assert world.batch(world.one("cat"), world.crowd("m1"), world.one("dan")) == ["cat", "dan"]
    for _ in range(3):
        assert world.batch(world.one("eve")) == ["eve"]
    assert len(world.gathering.turns) == 2
    flow.done(1)
    one, other = world.batch(), world.batch()
    assert len(one) == len(other) == 1 and sorted(one + other) == ["ann", "m1"], "one after the other"
    assert not world.gathering.turns
    world.store.close()


def test_the_thread_rests_until_it_is_called_or_somebody_comes(tmp_path: Path) -> None:
    world = World(tmp_path)
    gathering, engine = world.gathering, world.store.engine
    engine.flusher.flush()
    engine.side_work(0)
    gathering.outflow.add(MOST + 1)
    assert world.batch(world.crowd("ann")) == []
    assert 0 < (gathering.pause(engine, False) or 0) <= outflow.PATIENCE_S
    assert world.batch(world.crowd("ann")) == []
    gathering.outflow.done(1)
    assert gathering._queue.get_nowait() == [], "it is called"
    assert world.batch() == ["ann"]
    assert gathering.pause(engine, False) == 0.0
    world.store.close()


def test_who_was_waited_for_long_enough_is_next_also_where_others_are_done_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    now = 0.0
    flow = world.gathering.outflow
    flow._clock = lambda: now
    flow.add(MOST + 1)
    assert world.batch(world.crowd("ann"), world.crowd("m1")) == []
    assert world.batch(world.one("bob")) == ["bob"]
    now += PATIENCE_S
    assert world.batch(world.one("cat")) == ["cat"], "they need not wait for what takes long"
    for _ in range(MOST_PASSED - 2):
        assert world.batch(world.one("dan")) == ["dan"]
    (first,) = world.batch(world.one("eve"))
    assert first in {"ann", "m1"}, "nor that for another second"
    assert world.batch() == ["eve"], "but the next one does"
    assert flow.wait_s() == PATIENCE_S
    now += PATIENCE_S
    (last,) = world.batch()
    assert {first, last} == {"ann", "m1"}
    world.store.close()


def test_an_end_waits_for_nobody_who_is_not_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.gathering.outflow.add(MOST + 1)
    assert world.batch(world.crowd("ann")) == []
    world.gathering.outflow.stop()
    assert world.batch() == ["ann"]
    world.store.close()


def test_what_passes_leaves_nothing_where_nobody_waits(tmp_path: Path) -> None:
    """It was noted for a charge that never came, as long as there was much to be told, and delayed those of later ones."""
    world = World(tmp_path)
    world.gathering.outflow.add(MOST + 1)
    for _ in range(20):
        assert world.batch(world.one("cat"), world.one("dan")) == ["cat", "dan"]
    assert len(world.gathering.turns._tags) <= 2
    world.store.close()
