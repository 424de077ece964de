"""The store on SQLite against its twin in memory (INV-2 to INV-9, INV-12): the same requests, but only one of the two is hurt.

Whatever befalls the files and the process (failed commits, failed bulk writes, crashes at every boundary of a commit, lost
projections), what can be seen afterwards is what the twin shows, which has only ever heard of the batches that were kept.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mqtt_im.bridge.claims import Claims
from mqtt_im.core.records import encode
from mqtt_im.core.rules import Limits
from mqtt_im.store.given import Given
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.memory.engine import MemoryEngine
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.threads.readonly import Owed
from tests.support.store import Crash, SqliteStore
from tests.support.uploads import MemoryUploads

from .actions import FILES, GHOST, USERS, WARM, Action, batches
from .looking import difference, look, outcome, told

SMALL = {
    "mqtt_im.store.sqlite.state.entities.MAX_CACHED": 1,
    "mqtt_im.store.sqlite.state.contents.MAX_AMENDED": 1,
    "mqtt_im.store.sqlite.state.overlay.RECORD_BYTES": 700,
    "mqtt_im.store.sqlite.flusher.SLICE_ROWS": 2,
    "mqtt_im.store.sqlite.flusher.FLUSH_ROWS": 7,
    "mqtt_im.store.sqlite.replay.LOOK": 1,
    "mqtt_im.store.sqlite.loading.ROWS": 3,
    "mqtt_im.store.sqlite.loading.USERS": 2,
    "mqtt_im.store.sqlite.loading.MEMBERS": 2,
    "mqtt_im.store.sqlite.loading._NAMES": 2,
    "mqtt_im.store.queries.pages.CHUNK": 2,
}
"""Bounds that a short test reaches, so that what happens there happens."""


class StoreMachine(RuleBasedStateMachine):
    """Rules that do things; every one of them ends with looking at both stores, or purposely does not."""

    def __init__(self) -> None:
        super().__init__()
        self.undo = contextlib.ExitStack()
        for name, value in SMALL.items():
            self._patch(name, value)
        self.folder = tempfile.TemporaryDirectory()
        self.online: set[str] = set()
        self.clock = self.passed = 1_000_000
        """The wall clock, and the steady one, which does not go back."""

    @initialize(
        warm=st.booleans(),
        history=st.booleans(),
        window=st.sampled_from([-1, -1, 0, 10]),
        drop=st.booleans(),
        online=st.sets(st.sampled_from(USERS)),
        entries=st.sampled_from([0, 6, 1000]),
        changes=st.sampled_from([0, 0, 2]),
        reactions=st.sampled_from([0, 0, 1]),
        quota=st.sampled_from([(0, 0, 0), (0, 0, 0), (6, 0, 1), (0, 30, 0), (9, 0, 2)]),
    )
    def start(
        self,
        warm: bool,
        history: bool,
        window: int,
        drop: bool,
        online: set[str],
        entries: int,
        changes: int,
        reactions: int,
        quota: tuple[int, int, int],
    ) -> None:
        self._patch("mqtt_im.store.common.rendering.MAX_BYTES", 1_000 * entries)
        limits = Limits(
            group_members=3,
            edit_window_s=window,
            new_members_see_history=history,
            drop_blocked=drop,
            changes_per_message=changes,
            reactions_per_message=reactions,
            quota_messages=quota[0],
            quota_bytes=quota[1],
            quota_groups=quota[2],
            quota_devices=2,
            quota_blocks=2,
        )
        self.online |= online
        self.claims = Claims()
        self.twin_claims = Claims()
        self.store = SqliteStore(
            Path(self.folder.name),
            limits,
            self._has_account,
            self._take_back,
            self._release,
            self.online,
            uploads=MemoryUploads(FILES),
        )
        self.twin = MemoryEngine(
            Given(limits, self._has_account, self._twin_take_back, online=self.online, uploads=MemoryUploads(FILES))
        )
        if warm:
            self._kept(WARM)

    def _has_account(self, name: str) -> bool:
        return name != GHOST

    # The claims belong to a process, and do not outlive it.

    def _take_back(self, user: str, pos: int) -> bool:
        return self.claims.take_back(user, pos)

    def _release(self, user: str, pos: int) -> None:
        self.claims.release(user, pos)

    def _twin_take_back(self, user: str, pos: int) -> bool:
        return self.twin_claims.take_back(user, pos)

    # What happens.

    def _run(self, batch: list[Action]) -> list[Any]:
        jobs = [action.build(self.store.engine) for action in batch]
        self.store.run(jobs, self.clock, self.passed)
        return jobs

    def _follow(self, batch: list[Action], now: int) -> list[Any]:
        jobs = [action.build(self.twin) for action in batch]
        self._twin_runs(jobs, now)
        return jobs

    def _twin_runs(self, jobs: list[Job], now: int) -> None:
        self.twin.now, self.twin.ahead = now, self.store.engine.ahead
        self.twin.run(jobs, now, self.store.engine.behind)

    @rule(
        batch=batches,
        passed=st.sampled_from([0, 1, 700, 1500, -400]),
        fate=st.sampled_from([*["kept"] * 6, *["fails"] * 2, "crash"]),
        when=st.sampled_from(["before", "amid", "after"]),
        then=st.sampled_from([*["nothing"] * 4, *["writes"] * 2, "bulk fails", "crash", "crash and loss", "restart"]),
        steps=st.integers(0, 12),
        offers=st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 2)), max_size=1),
        turned=st.sampled_from([*USERS, *[""] * 6]),
        looking=st.booleans(),
    )
    def batch(
        self,
        batch: list[Action],
        passed: int,
        fate: str,
        when: str,
        then: str,
        steps: int,
        offers: list[tuple[str, int]],
        turned: str,
        looking: bool,
    ) -> None:
        """A batch meets its fate, and then something befalls the store.

        Before it `passed` ms go by, the user `turned` comes or goes, and some items are about to be offered to a device,
        which can be done unless they were replaced.
        """
        self.clock += passed
        self.passed += max(0, passed)
        if turned:
            self.online ^= {turned}
        for user, distance in offers:
            pos = self.twin.state.user(user).head - distance
            if pos > 0:
                assert self.claims.offer(user, pos) == self.twin_claims.offer(user, pos)
        match fate:
            case "kept":
                self._kept(batch)
            case "fails":
                self._failed(batch, when)
            case "crash":
                self._crashed(batch, when)
        match then:
            case "writes":
                for _ in range(steps):
                    self.store.engine.flusher.step(hurry=True)
            case "bulk fails":
                self._bulk_fails(steps)
            case "crash":
                self.store.crash()
                self._anew(lose=False)
            case "crash and loss":
                self.store.crash()
                self._anew(lose=True)
            case "restart":
                self.store.close()
                self._anew(lose=False)
                assert not self.store.engine.state.live.records
        self._look(looking)

    def _kept(self, batch: list[Action]) -> None:
        owed = self._owed()
        append = self.store.engine.log.append

        def watched(*args: Any) -> None:
            self._look_beside()
            append(*args)

        with patch.object(self.store.engine.log, "append", watched):
            done = self._run(batch)
        if all(job.reads for job in done):
            self._tells_the_time()  # as the reader has it: the ledger has not looked at its clock
        now = self.store.engine.now
        if not all(job.reads for job in done):
            self._twin_runs(owed, now)
        expected = self._follow(batch, now)
        for action, job, twin in zip(batch, done, expected, strict=True):
            found, wanted = outcome(job, now), outcome(twin, now)
            assert found == wanted, f"{action}: {difference(found, wanted)}"
        self.store.keep_up(len(batch))

    def _owed(self) -> list[Job]:
        """What the next batch begins with, for the twin."""
        copied = Owed()
        copied._devices.update(self.store.ledger.writer._owed._devices)
        return [copied] if copied else []

    def _failed(self, batch: list[Action], when: str) -> None:
        """The commit fails, or seems to: a batch that was not kept has left nothing, and of it only what reads is answered."""
        self._hurt(sqlite3.OperationalError("disk I/O error"), when)
        owed = self._owed()
        done = self._run(batch)
        if self.hurt:
            if when == "after":
                self._twin_runs(owed, self.batch_now)
                self._follow(batch, self.batch_now)
            for action, job in zip(batch, done, strict=True):
                assert job.commits is None
                if isinstance(job, FetchJob | CallJob):
                    (twin,) = self._follow([action], self.store.engine.now)
                    assert outcome(job, self.batch_now) == outcome(twin, self.batch_now), action
                elif job.patient:
                    assert job.refusal is not None and job.refusal.code == "unavailable" and job.refusal.retry
        else:  # there was nothing to commit
            self._follow(batch, self.store.engine.now)
        del self.store.engine.log.append
        if self.hurt:
            assert self.store.ledger.writer._recovered(self.store.engine)

    def _crashed(self, batch: list[Action], when: str) -> None:
        """The process ends at a boundary of the commit."""
        self._hurt(Crash(), when)
        owed = self._owed()
        try:
            self._run(batch)
        except Crash:
            if when == "after":
                self._twin_runs(owed, self.batch_now)
                self._follow(batch, self.batch_now)
        else:
            self._follow(batch, self.store.engine.now)
        self.store.crash()
        self._anew(lose=False)

    def _bulk_fails(self, rows: int) -> None:
        engine = self.store.engine
        write = engine.projection.write
        left = rows

        def failing(*args: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise sqlite3.OperationalError("disk I/O error")
            write(*args)

        try:
            with patch.object(engine.projection, "write", failing):
                engine.flusher.flush()
        except sqlite3.OperationalError as error:
            self.store.ledger.writer._trouble(engine, error)
            assert self.store.ledger.writer._recovered(engine)

    # How it is hurt.

    def _patch(self, name: str, value: int) -> None:
        self.undo.enter_context(patch(name, value))

    def _hurt(self, error: BaseException, when: str) -> None:
        log = self.store.engine.log
        append = log.append
        self.hurt = False

        def failing(rows: Any, rewrites: Any) -> None:
            self.hurt = True
            self.batch_now = self.store.engine.now
            if when == "amid":
                connection = log._conn
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO log (lsn, rec) VALUES (?, ?)", rows[0])
                connection.execute("ROLLBACK")
            elif when == "after":
                append(rows, rewrites)
            raise error

        log.append = failing  # type: ignore[method-assign]

    def _anew(self, lose: bool) -> None:
        self.claims, self.twin_claims = Claims(), Claims()
        self.twin.restart()
        self.store.reopen(lose)

    # What is seen.

    def _look(self, looking: bool) -> None:
        if looking:
            engine, twin = self.store.engine, self.twin
            self._tells_the_time()
            now, twin.now, twin.behind, twin.ahead = engine.now, engine.now, engine.behind, engine.ahead
            expected = look(twin, now)
            for seen in (look(engine, now), self.store.see(lambda view: look(view, now), now, self.passed)):
                for key, value in expected.items():
                    assert seen[key] == value, difference(seen[key], value, str(key))
            rows = dict(self.store.engine.log.after(0))
            assert rows == {lsn: encode(record) for lsn, record in self.twin.state.log.items()}

    def _tells_the_time(self) -> None:
        engine = self.store.engine
        engine.now = max(engine.now, self.clock)
        engine.behind = engine.now - self.passed
        engine.ahead = self.store.clock.set(engine.now, self.passed).ahead

    def _look_beside(self) -> None:
        """While a batch is on its way to the disk nobody is told of it: who would see it has to wait."""
        now = self.store.engine.now
        user = USERS[self.store.engine.last % len(USERS)]
        seen = self.store.glance(lambda view: told(view, user, now), now, self.passed)
        if seen is not None:
            expected = told(self.twin, user, now)
            assert seen == expected, difference(seen, expected, user)

    def teardown(self) -> None:
        try:
            if hasattr(self, "store"):
                self._look(True)
                for lose in (False, True):
                    self.store.close()
                    self.store.reopen(lose)
                    self._look(True)
                self.store.close()
                report = check(self.store.data_dir)
                assert report.problems == []
        finally:
            self.folder.cleanup()
            self.undo.close()


TestStore = StoreMachine.TestCase
if settings.get_current_profile_name() == "default":
    TestStore.settings = settings(max_examples=70, stateful_step_count=30)
