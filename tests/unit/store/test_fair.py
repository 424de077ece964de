"""Nobody holds up another in the store: reads beside writes, turns among reads and within batches, bounds by weight."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import thread_time
from typing import Any, cast
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.clock import Times
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.interface import Readable, Store
from mqtt_im.store.jobs.delivering import CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.opening import open_ledger
from mqtt_im.store.threads import gathering, weighing
from mqtt_im.store.threads import writer as writers
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
AT = Times(NOW, NOW, 0)
PATIENCE_S = 60.0


def on_a_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        async def within() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(*args, **fixtures)

        asyncio.run(within())

    return run


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Ledger]:
    ledger = open_ledger(folder, synchronous="off")
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


def send(user: str, to: str, notify: Callable[[Any], None], body: bytes = b"1") -> RequestJob:
    return RequestJob(Who(user, "pc", 0), rq.Send(to=to, body=Raw(body)), notify)


async def done(ledger: Ledger, make: Callable[[Callable[[Any], None]], Job]) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ledger.submit(make(future.set_result))
    return await future


class SlowDisk:
    """Commits of the ledger's engine wait until they are let go."""

    def __init__(self, ledger: Ledger) -> None:
        self.reached = threading.Event()
        self.free = threading.Event()
        log = cast(Engine, ledger._store).log
        append = log.append

        def slow(*args: Any) -> None:
            self.reached.set()
            assert self.free.wait(PATIENCE_S)
            append(*args)

        self._patch = patch.object(log, "append", slow)

    def __enter__(self) -> SlowDisk:
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.free.set()
        self._patch.stop()


# Reads beside writes.


@pytest.mark.parametrize("who", ["ann", ""])
@on_a_loop
async def test_a_read_waits_for_what_its_user_has_handed_in_before_and_for_nothing_later(tmp_path: Path, who: str) -> None:
    """Who always had something on its way read nothing on any device; the server's own, such as cursors, held up everybody."""
    async with running(tmp_path) as ledger:
        count = 0
        read: asyncio.Task[Any] | None = None

        def again(_: object) -> None:
            nonlocal count
            count += 1
            if (read is None or not read.done()) and count < 1_000:
                hand_in()

        def hand_in() -> None:
            ledger.submit(CursorsJob([], again) if not who else send(who, "bob", again))

        hand_in()
        hand_in()
        read = asyncio.ensure_future(ledger.call(lambda engine: engine.last, "ann"))
        await read
        assert count < 1_000
        await ledger.over()


@on_a_loop
async def test_a_send_does_not_wait_for_somebodys_reads(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        over = threading.Event()

        def slow(view: Any) -> Any:
            statements = view.state.log._conn
            statements._connection.create_function("slow", 0, lambda: over.wait(PATIENCE_S))
            return statements.execute("SELECT slow()").fetchone()

        reads = [asyncio.ensure_future(ledger.call(slow, "greedy")) for _ in range(64)]
        await asyncio.sleep(0)
        try:
            assert (await done(ledger, lambda notify: send("ann", "bob", notify))).refusal is None
            assert not any(read.done() for read in reads)
        finally:
            over.set()
        await asyncio.gather(*reads)


@on_a_loop
async def test_a_read_does_not_wait_for_somebodys_commit(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        await done(ledger, lambda notify: send("cat", "dan", notify))
        with SlowDisk(ledger) as disk:
            written = asyncio.ensure_future(done(ledger, lambda notify: send("ann", "bob", notify)))
            await asyncio.to_thread(disk.reached.wait)
            fetched = await done(ledger, lambda notify: FetchJob("dan", 0, 10, 10**6, notify))
            assert [pos for pos, _ in fetched.entries] == [1]
            assert not written.done()
        await written


@on_a_loop
async def test_a_user_reads_what_it_has_written_before(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        with SlowDisk(ledger) as disk:
            written = asyncio.ensure_future(done(ledger, lambda notify: send("ann", "ann", notify)))
            await asyncio.to_thread(disk.reached.wait)
            read = asyncio.ensure_future(ledger.call(lambda view: view.state.user("ann").head, "ann"))
            await ledger.call(lambda _: None, "bob")
            assert not read.done()
        await written
        assert await read == 1


@on_a_loop
async def test_a_read_sees_the_cursors_that_were_handed_in_before(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        await done(ledger, lambda notify: RequestJob(Who("ann", "pc", 0), rq.Hello(), notify))
        await done(ledger, lambda notify: send("ann", "ann", notify))
        ledger.submit(CursorsJob([("ann", "pc", 1, [])], lambda _: None))
        assert await ledger.call(lambda view: view.state.devices("ann")["pc"].cursor, "ann") == 1


@on_a_loop
async def test_what_is_not_on_disk_is_not_seen(tmp_path: Path) -> None:
    """INV-1: who asks for bob's inbox waits for what is on its way there, and is not told of it before."""
    async with running(tmp_path) as ledger:
        await done(ledger, lambda notify: send("ann", "bob", notify))
        with SlowDisk(ledger) as disk:
            written = asyncio.ensure_future(done(ledger, lambda notify: send("ann", "bob", notify)))
            await asyncio.to_thread(disk.reached.wait)
            read = asyncio.ensure_future(done(ledger, lambda notify: FetchJob("bob", 0, 10, 10**6, notify)))
            assert await ledger.call(lambda view: view.state.user("cat").head, "cat") == 0
            assert not read.done()
        await written
        assert (await read).head == 2


@on_a_loop
async def test_reading_goes_on_while_nothing_can_be_written(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        await done(ledger, lambda notify: send("ann", "bob", notify))
        log = cast(Engine, ledger._store).log
        full = sqlite3.OperationalError("database or disk is full")
        with patch.object(log, "append", side_effect=full), patch.object(log, "probe", side_effect=full):
            refused = await done(ledger, lambda notify: send("ann", "bob", notify))
            assert refused.refusal is not None and refused.refusal.retry
            fetched = await done(ledger, lambda notify: FetchJob("bob", 0, 10, 10**6, notify))
            assert [pos for pos, _ in fetched.entries] == [1]
            assert ledger.failing is not None


@on_a_loop
async def test_what_a_crash_would_take_from_a_device_is_not_promised_while_nothing_can_be_written(tmp_path: Path) -> None:
    """Its PUBACK says that it is on disk. What would only make items come again may be said before that."""

    def hello(**fields: Any) -> Callable[[Callable[[Any], None]], RequestJob]:
        return lambda notify: RequestJob(Who("bob", "pc", 0), rq.Hello(id="h", **fields), notify)

    async with running(tmp_path) as ledger:
        await done(ledger, hello())
        for _ in range(3):
            await done(ledger, lambda notify: send("ann", "bob", notify))
        await done(ledger, lambda notify: CursorsJob([("bob", "pc", 2, [])], notify))
        log = cast(Engine, ledger._store).log
        full = sqlite3.OperationalError("database or disk is full")
        with patch.object(log, "append", side_effect=full), patch.object(log, "probe", side_effect=full):
            for fields, refused in (({"after": 1}, True), ({"ack": "app"}, True), ({"after": 3}, False), ({"after": 2}, False)):
                job = await done(ledger, hello(**fields))
                assert (job.refusal is not None and job.refusal.retry) == refused, fields


@on_a_loop
async def test_everything_handed_in_is_done_before_the_end(tmp_path: Path) -> None:
    told: list[object] = []
    async with running(tmp_path) as ledger:
        for _ in range(50):
            ledger.submit(send("ann", "ann", told.append))
            ledger.submit(CallJob(lambda view: view.state.user("ann").head, told.append, "ann"))
    assert len(told) == 100
    heads = [job.result for job in told if isinstance(job, CallJob)]
    assert heads == sorted(heads) and heads[-1] == 50


# Turns.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path)
    yield found
    found.close()


def test_among_reads_users_take_turns(store: SqliteStore) -> None:
    answered: list[str] = []
    for user in ["greedy"] * 64 + ["bob"]:
        store.reader.submit(CallJob(lambda view: view.state.user("x"), lambda job: answered.append(job.user), user))
    store.reader._gather(block=False)
    while len(store.reader._turns):
        store.reader.serve()
    assert len(answered) == 65
    assert answered.index("bob") <= 1


def test_a_read_of_the_server_itself_comes_first(store: SqliteStore) -> None:
    answered: list[str] = []
    for user in ["ann"] * 10 + [""]:
        store.reader.submit(CallJob(lambda _: None, lambda job: answered.append(job.user), user))
    store.reader._gather(block=False)
    store.reader.serve()
    assert answered == [""]


class Batches:
    """Sees what each transaction has written, and lets the ledger work off what was handed in."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.senders: list[list[str]] = []
        """Of each batch."""
        self.jobs: list[Job] = []

    def hand_in(self, jobs: list[Job]) -> None:
        self.store.ledger.gathering._queue.put(jobs)

    def run(self, count: int = 1_000) -> None:
        ledger, engine = self.store.ledger, self.store.engine
        for _ in range(count):
            if not len(ledger.gathering.turns) and ledger.gathering._queue.empty():
                return
            told: list[Job] = []
            with patch.object(ledger.writer, "_report", told.extend):
                ledger.writer._work(engine, ledger.gathering.gather(engine, False))
            self.senders.append([job.line() for job in told])


def group_of(store: SqliteStore, members: int) -> None:
    names = [f"m{number}" for number in range(members)]
    job = RequestJob(Who("greedy", "pc", 0), rq.GroupCreate(id="g", group="#g", members=names), lambda _: None)
    store.run([job], NOW)
    assert job.refusal is None


def test_a_batch_is_bounded_by_what_it_costs_and_the_rest_takes_turns(store: SqliteStore) -> None:
    """Twenty messages to a hundred members each stand before one of bob's, which is in the second transaction."""
    group_of(store, 99)
    batches = Batches(store)
    with patch.object(writers, "MAX_WEIGHT", 500):
        batches.hand_in([*(send("greedy", "#g", lambda _: None) for _ in range(20)), send("bob", "ann", lambda _: None)])
        batches.run()
    assert [len(batch) for batch in batches.senders] == [5, 6, 5, 5]
    assert "bob" in batches.senders[1]
    assert store.engine.state.user("ann").head == 1
    assert store.engine.state.user("m1").head == 21


def test_what_does_not_fit_is_not_looked_up_again_with_each_batch(store: SqliteStore) -> None:
    looked_up = 0
    prefetch = store.engine.prefetch

    def counted(batch: Sequence[Job]) -> None:
        nonlocal looked_up
        looked_up += len(batch)
        prefetch(batch)

    batches = Batches(store)
    with patch.object(writers, "MAX_WEIGHT", 500), patch.object(store.engine, "prefetch", counted):
        batches.hand_in([send(f"u{number}", "ann", lambda _: None) for number in range(900)])
        batches.run()
    assert sum(map(len, batches.senders)) == 900
    assert looked_up <= 3 * 900


def test_large_bodies_count_as_what_they_are(store: SqliteStore) -> None:
    batches = Batches(store)
    with patch.object(writers, "MAX_WEIGHT", 500):
        batches.hand_in([send("greedy", "ann", lambda _: None, b'"%b"' % (b"x" * 60_000)) for _ in range(20)])
        batches.run()
    assert max(len(batch) for batch in batches.senders) <= 8


class Looking(Job):
    """Takes the thread four ms to be refused."""

    def line(self) -> str:
        return "greedy"

    def prepare(self, engine: Any) -> None:
        end = thread_time() + 0.004
        while thread_time() < end:
            pass
        raise Refusal("bad_field", "no")


def test_a_batch_is_bounded_by_the_time_that_refusals_take(store: SqliteStore) -> None:
    """They weigh nothing: thirty of them, at four ms each, are not one transaction, and do not stand before bob's message."""
    batches = Batches(store)
    batches.hand_in([*(Looking() for _ in range(30)), send("bob", "ann", lambda _: None)])
    batches.run()
    assert max(len(batch) for batch in batches.senders) <= 4
    assert "bob" in batches.senders[1]


def test_what_comes_later_goes_before_what_has_had_its_share(store: SqliteStore) -> None:
    group_of(store, 99)
    batches = Batches(store)
    with patch.object(writers, "MAX_WEIGHT", 500):
        batches.hand_in([send("greedy", "#g", lambda _: None) for _ in range(30)])
        batches.run(1)
        batches.hand_in([send("bob", "ann", lambda _: None) for _ in range(10)])
        batches.run(1)
    assert batches.senders[1].count("bob") >= 8  # until it is known what his cost, they count as what greedy's last one did


def test_one_users_requests_keep_their_order(store: SqliteStore) -> None:
    """INV-14, however they are cut into batches."""
    group_of(store, 99)
    batches = Batches(store)
    jobs = [
        send(user, to, lambda _: None, b"%d" % number) for number in range(30) for user, to in (("greedy", "#g"), ("bob", "ann"))
    ]
    with patch.object(writers, "MAX_WEIGHT", 500):
        batches.hand_in(list[Job](jobs))
        batches.run()
    for user in ("greedy", "bob"):
        bodies = [job.decision.records[0].body for job in jobs if job.who.user == user and job.decision]  # type: ignore[union-attr]
        seqs = [job.decision.records[0].seq for job in jobs if job.who.user == user and job.decision]  # type: ignore[union-attr]
        assert bodies == [b"%d" % number for number in range(30)]
        assert seqs == list(range(seqs[0], seqs[0] + 30))


def test_answers_leave_in_parts(store: SqliteStore) -> None:
    told: list[int] = []
    with patch.object(store.ledger.writer, "_report", lambda batch: told.append(len(batch))):
        store.run([send("ann", "bob", lambda _: None) for _ in range(250)], NOW)
    assert told == [100, 100, 50]


# What a look sees.


def bodies(view: Readable, user: str) -> list[Any]:
    entries = view.entries(view.state.user(user), 0, 100, 10**6)
    return [(b'"recalled":true' in entry.item(pos, user, "x", 0), entry.void) for pos, entry in entries]


def test_what_is_recalled_meanwhile_is_not_told_as_it_was(store: SqliteStore) -> None:
    """INV-9: a page that was read before a recall does not arrive after it."""
    store.run([send("ann", "bob", lambda _: None)], NOW)
    seen: list[Any] = []

    def look(view: Readable) -> None:
        seen.append(bodies(view, "bob"))
        if len(seen) == 1:
            store.run([RequestJob(Who("ann", "pc", 0), rq.Recall(id="r", conv="ann:bob", seq=1), lambda _: None)], NOW)

    told: list[Any] = []
    reading = store.engine.reading()
    assert reading.run(look, lambda: told.append(seen[-1]), AT)
    reading.close()
    assert seen[0] == [(False, "")]
    assert told == [[(True, ""), (False, "")]]


def test_what_is_replaced_meanwhile_is_not_told_as_it_was(tmp_path: Path) -> None:
    """INV-12: whoever gets such a page would offer it, since the replacement is over by then."""
    store = SqliteStore(tmp_path, claim=lambda *_: True)

    def state(body: bytes) -> RequestJob:
        return RequestJob(Who("ann", "pc", 0), rq.Send(to="bob", key="state", body=Raw(body)), lambda _: None)

    store.run([state(b"1")], NOW)
    seen: list[Any] = []

    def look(view: Readable) -> None:
        seen.append(bodies(view, "bob"))
        if len(seen) == 1:
            store.run([state(b"2")], NOW)

    told: list[Any] = []
    reading = store.engine.reading()
    assert reading.run(look, lambda: told.append(seen[-1]), AT)
    reading.close()
    store.close()
    assert seen[0] == [(False, "")]
    assert told == [[(False, "replaced"), (False, "")]]


def test_what_changes_all_the_time_is_read_all_the_same(store: SqliteStore) -> None:
    """In the end the others wait for this one look."""
    store.run([send("ann", "bob", lambda _: None)], NOW)
    looks = 0

    def look(view: Readable) -> None:
        nonlocal looks
        looks += 1
        bodies(view, "bob")
        if looks <= 3:
            react = rq.React(id=f"r{looks}", conv="ann:bob", seq=1, emoji="+" if looks % 2 else "")
            store.run([RequestJob(Who("ann", "pc", 0), react, lambda _: None)], NOW)

    reading = store.engine.reading()
    assert reading.run(look, lambda: None, AT)
    assert reading._log.keep and looks == 4
    reading.close()


def test_generations_that_change_places_hide_nothing(store: SqliteStore) -> None:
    """INV-13: a page that is read while the projections are written is whole."""
    for _ in range(20):
        store.run([send("ann", "bob", lambda _: None)], NOW)
    looks = 0

    def look(view: Readable) -> None:
        nonlocal looks
        looks += 1
        owner = view.state.user("bob")
        if looks == 1:
            store.engine.flusher.flush()
            store.run([send("ann", "bob", lambda _: None)], NOW)
        seen.append([(pos, entry.void) for pos, entry in view.entries(owner, 0, 100, 10**6)])

    seen: list[Any] = []
    reading = store.engine.reading()
    assert reading.run(look, lambda: None, AT)
    reading.close()
    assert seen[-1] == [(pos, "") for pos in range(1, 22)]


def test_an_exact_look_is_told_before_what_changes_the_users_it_saw(store: SqliteStore) -> None:
    looks, head = 0, -1

    def look(view: Readable) -> None:
        nonlocal looks, head
        looks += 1
        head = view.state.user("bob").head
        if looks == 1:
            store.run([send("ann", "bob", lambda _: None)], NOW)

    reading = store.engine.reading()
    assert reading.run(look, lambda: None, AT, exact=True)
    assert (head, looks) == (1, 2)
    looks = 0
    assert reading.run(look, lambda: None, AT)
    assert (head, looks) == (1, 1)
    reading.close()


# What has many recipients.


def test_what_has_many_recipients_waits_for_the_disk_and_lets_others_pass(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    ledger, engine, over = store.ledger, store.engine, list[str]()

    def ask(user: str, request: rq.Request) -> RequestJob:
        return RequestJob(Who(user, "pc", 0), request, lambda job: over.append(job.who.user))

    members = [f"m{number}" for number in range(gathering.HEAVY + 1)]
    store.run([ask("ann", rq.GroupCreate(id="g", group="#g", members=members))], NOW)
    over.clear()
    with patch.object(type(engine.flusher), "crowded", lambda _: True):
        heavy = [
            ask("ann", rq.Send(to="#g", body=Raw(b"1"))),
            ask("bob", rq.GroupCreate(id="h", group="#h", members=members)),
            ask("ann", rq.Send(to="bob", body=Raw(b"2"))),  # behind her first
        ]
        ledger.gathering._queue.put([*heavy, *(ask("cat", rq.Send(to="dan", body=Raw(b"%d" % number))) for number in range(3))])
        batch = ledger.gathering.gather(engine, False)
        assert [job.line() for job in batch] == ["cat"] * 3
        ledger.writer._work(engine, batch)
        assert ledger.gathering.gather(engine, False) == []
    batch = ledger.gathering.gather(engine, False)
    assert sorted(job.line() for job in batch) == ["ann", "ann", "bob"]
    ledger.writer._work(engine, batch)
    while ledger.gathering.turns:
        ledger.writer._work(engine, ledger.gathering.gather(engine, False))
    assert over[:3] == ["cat"] * 3 and sorted(over[3:]) == ["ann", "ann", "bob"]
    store.close()


def test_who_comes_beside_a_long_job_has_an_answer_before_it_is_begun(tmp_path: Path) -> None:
    """But it is passed by a few batches at most."""
    store = SqliteStore(tmp_path)
    ledger, engine = store.ledger, store.engine
    members = [f"m{number}" for number in range(weighing.LONG + 1)]

    def ask(user: str, request: rq.Request) -> RequestJob:
        return RequestJob(Who(user, "pc", 0), request, lambda _: None)

    def short(user: str) -> RequestJob:
        return ask(user, rq.Send(to="bob", body=Raw(b"1")))

    def batch(*came: Job) -> list[str]:
        ledger.gathering._queue.put(list(came))
        batch = ledger.gathering.gather(engine, False)
        ledger.writer._work(engine, batch)
        assert all(job.refusal is None and job.commits for job in batch)
        return [job.line() for job in batch]

    store.run([ask("ann", rq.GroupCreate(id="g", group="#g", members=members))], NOW)
    assert batch(ask("ann", rq.Send(to="#g", body=Raw(b"1"))), short("cat"), short("dan")) == ["cat", "dan"]
    for _ in range(gathering.MOST_PASSED - 1):
        assert batch(short("eve")) == ["eve"]
    assert batch(short("eve")) == ["ann"]
    assert batch() == ["eve"]
    assert not ledger.gathering.turns
    store.close()


def test_what_is_done_beside_the_batches_gives_way_to_who_waits(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    members = [f"m{number}" for number in range(2_000)]
    flusher = store.engine.flusher
    with patch("mqtt_im.store.sqlite.flusher.FLUSH_ROWS", 1), patch("mqtt_im.store.sqlite.flusher.MOST_S", PATIENCE_S):
        for name in "gh":
            ask = rq.GroupCreate(id=name, group=f"#{name}", members=members)
            store.run([RequestJob(Who("ann", "pc", 0), ask, lambda _: None)], NOW)
        flusher.keep_up()  # it begins
        assert flusher.writing
        store.run([send("ann", "bob", lambda _: None)], NOW)
        before = flusher._written
        store.engine.side_work(1, lambda: True)
        assert before < flusher._written <= before + 500
        store.engine.side_work(1, lambda: False)
        assert flusher._written > before + 1_000
    store.close()


def test_a_generation_that_is_full_is_written_a_little_at_a_time(tmp_path: Path) -> None:
    """However much one job has made, the next one does not wait until all of it is written."""
    store = SqliteStore(tmp_path)
    members = [f"m{number}" for number in range(2_000)]
    flusher = store.engine.flusher
    with patch("mqtt_im.store.sqlite.flusher.FLUSH_ROWS", 2), patch("mqtt_im.store.sqlite.flusher.MOST_S", 0.0):
        for number in range(4):
            ask = rq.GroupCreate(id=f"g{number}", group=f"#g{number}", members=members)
            store.run([RequestJob(Who("ann", "pc", 0), ask, lambda _: None)], NOW)
        flusher.keep_up()  # it begins
        assert flusher.writing and not flusher.full()
        for _ in range(2):
            store.run([send("ann", "bob", lambda _: None)], NOW)
        assert flusher.full() and flusher.crowded()
        before = flusher._written
        flusher.keep_up()
        assert flusher._written <= before + 500
        flusher.flush()
    assert not flusher.full()
    store.close()


@on_a_loop
async def test_what_many_have_asked_for_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with patch("mqtt_im.store.threads.reader.LAST_S", 0.0):
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        begun, free = threading.Event(), threading.Event()

        def slow(_: Readable) -> str:
            begun.set()
            assert free.wait(PATIENCE_S)
            return "slow"

        asked = [asyncio.ensure_future(ledger.call(slow, "ann"))]
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        asked += [asyncio.ensure_future(ledger.call(lambda _: "late", user)) for user in ("ann", "bob", "cat")]
        await asyncio.sleep(0)
        ending = asyncio.ensure_future(ledger.stop())
        while ledger._reader._queue.qsize() < 4:  # noqa: ASYNC110 - those three, and the end, of which no event tells
            await asyncio.sleep(0.001)
        free.set()
        await ending
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert first == "slow"
        assert [other.code for other in others if isinstance(other, Refusal)] == ["unavailable"] * 3


@on_a_loop
async def test_what_many_have_handed_in_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Heavy requests of twenty accounts made a stop of a minute. What is refused was not acknowledged, and comes again."""
    with patch("mqtt_im.store.threads.writer.LAST_S", 0.0):
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        begun, free = threading.Event(), threading.Event()

        def slow(_: Store) -> str:
            begun.set()
            assert free.wait(PATIENCE_S)
            return "slow"

        first = asyncio.ensure_future(ledger.decide(slow))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        told: list[RequestJob] = []
        for number in range(400):
            ledger.submit(send(f"user{number % 3}", "bob", told.append, b'"%s"' % (b"x" * 60_000)))
        own = asyncio.ensure_future(ledger.decide(lambda _: "own"))
        await asyncio.sleep(0)
        ending = asyncio.ensure_future(ledger.stop())
        while ledger.gathering._queue.qsize() < 2:  # noqa: ASYNC110 - those, and the end, of which no event tells
            await asyncio.sleep(0.001)
        free.set()
        await ending
        assert (await first, await own) == ("slow", "own")
        codes = Counter(None if job.refusal is None else job.refusal.code for job in told)
        assert codes.keys() == {None, "unavailable"} and codes.total() == 400
    async with running(tmp_path) as ledger:
        conv = await ledger.call(lambda engine: [engine.state.conv(f"bob:user{number}") for number in range(3)])
        assert sum(found.head for found in conv if found is not None) == codes[None]


@on_a_loop
async def test_others_give_way_while_the_thread_decides_a_long_job(tmp_path: Path) -> None:
    """Of two threads one runs at a time: a group of 5,000 took twice as long beside the loop that told of the one before."""
    seen: list[tuple[int, bool]] = []
    async with running(tmp_path) as ledger:

        class Group(RequestJob):
            def prepare(self, engine: Any) -> None:
                super().prepare(engine)
                seen.append((len(self.request.members), ledger.writer.holds_up))  # type: ignore[attr-defined]

        for count in (10, 2 * weighing.LONG):
            members = [f"member{number}" for number in range(count)]
            request = rq.GroupCreate(id=f"g{count}", group=f"#g{count}", members=members)
            await done(ledger, lambda notify, request=request: Group(Who("ann", "pc", 0), request, notify))  # type: ignore[misc]
        assert seen == [(10, False), (2 * weighing.LONG, True)]
        await ledger.decide(lambda _: seen.append((0, ledger.writer.holds_up)))
        assert seen[-1] == (0, False)
