"""Retention on PostgreSQL under random use, against the model of what must stay that SQLite's is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from mqtt_im.core.rules import Limits
from mqtt_im.store.common.retaining import DAY_MS
from mqtt_im.store.jobs.delivering import PullJob
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.postgres.check import check
from mqtt_im.store.postgres.large import MEMBERS
from mqtt_im.store.postgres.retention import Pass
from tests.support.pgstore import PostgresStore

from .actions import GHOST, USERS, WARM, Action, batches, ignore
from .test_postgres import SMALL, database, empty
from .test_retention import RetentionMachine, policies


class PostgresRetention(RetentionMachine):
    """The same rules, but for how a store is hurt."""

    most_at_once = MEMBERS

    @initialize(drop=st.booleans(), replace=st.booleans())
    def start(self, drop: bool, replace: bool) -> None:
        for name, value in {**SMALL, "mqtt_im.store.postgres.retention.ROWS": 3}.items():
            self.patches.append(patch(name, value))
            self.patches[-1].start()
        empty()
        with database() as url:
            self.store: Any = PostgresStore(
                url,
                Path(self.folder.name),
                Limits(group_members=3, edit_window_s=-1, quota_devices=2, drop_blocked=drop),
                lambda name: name != GHOST,
                claim=lambda *_: replace,
                online=USERS,
                most_at_once=self.most_at_once,
            )
        self._run(WARM)

    @rule(batch=batches, passed=st.sampled_from([1, 1, 1000, DAY_MS, 15 * DAY_MS, 31 * DAY_MS]), steps=st.just(0))
    def batch(self, batch: list[Action], passed: int, steps: int) -> None:
        self.clock += passed
        self._run(batch)

    @rule(
        policy=policies,
        cut=st.integers(0, 10),
        between=st.lists(batches, max_size=3),
        steps=st.integers(1, 4),
        end=st.sampled_from(["kill", "trouble"]),
    )
    def retain(self, policy: Policy, cut: int, between: list[list[Action]], steps: int, end: str) -> None:
        if cut:
            free = self._begin(policy, cut, between, steps)
            if end == "trouble":
                self.store.ledger.writer._trouble(self.store.engine, "disk full")
                assert self.store.ledger.writer._recovered(self.store.engine)
            else:
                self.store.crash()
                self.store.reopen()
            self._learn(policy, free)
        before, answers = self._views(), self._answers()
        self._compact(policy)
        for lsn in self._decide(policy):
            self.made[lsn].gone = True
        for name in self._forgotten(policy):
            del self.ids[name]
        self._compare(before, self._views())
        assert {key: answers[key] for key in self.ids} == self._answers()
        self._rebuild()

    def _begin(self, policy: Policy, cut: int, between: list[list[Action]], steps: int) -> set[int]:
        free = self._decide(policy)
        work = Pass(self.store.engine, policy, self.clock)
        for number in range(cut):
            if not work.step():
                break
            if between and number % steps == steps - 1:
                self._run(between.pop())
                free |= self._decide(policy)
        work.end()
        return free

    def _compact(self, policy: Policy) -> None:
        ended: list[Any] = []
        self.store.engine.retain(policy, self.clock, ended.append)
        while not ended:
            self.store.engine.side_work(0)
        assert isinstance(ended[0], Removed)

    def _decide(self, policy: Policy) -> set[int]:
        self.store.engine.load()
        return super()._decide(policy)

    def _views(self) -> dict[str, Any]:
        self.store.engine.load()
        return super()._views()

    def _answers(self) -> dict[tuple[str, str], Any]:
        self.store.engine.load()
        return super()._answers()

    def _rebuild(self) -> None:
        assert check(self.store.database).problems == []


class LargeRetention(PostgresRetention):
    """Groups of two are large, and their members take what they tell after each job."""

    most_at_once = 1

    def _run(self, batch: list[Action]) -> None:
        for action in batch:
            super()._run([action])
            self.store.run([PullJob(USERS, "", ignore)], self.clock)
            came, _ = self.store.engine.pulled(USERS)
            for user, items in came.items():
                for pos, lsn in items:
                    self.made[lsn].items.append((user, pos))


TestPostgresRetention = PostgresRetention.TestCase
TestLargeRetention = LargeRetention.TestCase
TestPostgresRetention.settings = TestLargeRetention.settings = settings(max_examples=8, stateful_step_count=10)
