"""`store copy` amid random use: one store is moved to the other kind of database again and again, one stays where it is.

After each step both show everybody the same, and after each move a retained, edited, recalled, erased and replaced past is the
same past; so clients can't tell, but by the epoch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mqtt_im.copying import copy_store
from mqtt_im.core.rules import Limits
from mqtt_im.postgres.nodes import leave
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.common.retaining import DAY_MS
from mqtt_im.store.jobs.delivering import PullJob
from mqtt_im.store.postgres.large import MEMBERS
from mqtt_im.store.postgres.state import Work
from tests.support.pgstore import PostgresStore
from tests.support.postgres import Cluster
from tests.support.store import SqliteStore
from tests.support.uploads import MemoryUploads

from .actions import FILES, GHOST, USERS, WARM, Action, batches, ignore
from .looking import bare, difference, look
from .test_retention import policies

SMALL = {
    "mqtt_im.store.tools.whole.AT_ONCE": 3,
    "mqtt_im.store.postgres.whole.AT_ONCE": 3,
    "mqtt_im.store.sqlite.whole.AT_ONCE": 3,
    **{f"mqtt_im.store.postgres.{module}.CHUNK": 2 for module in ("look", "locked", "inbox", "taking", "check")},
}
"""Bounds that a short test reaches, so that what happens there happens."""

_clusters: list[Cluster] = []


class Moving(RuleBasedStateMachine):
    most_at_once = MEMBERS

    def __init__(self) -> None:
        super().__init__()
        self.undo = ExitStack()
        self.folder = Path(self.undo.enter_context(tempfile.TemporaryDirectory()))
        self.clock = 1_700_000_000_000
        self.numbers = count()
        self.databases: list[str] = []
        for name, value in SMALL.items():
            self.undo.enter_context(patch(name, value))
        # Which server an item may have been offered by is not the question here: both take back whatever no device has.
        self.undo.enter_context(patch.object(Work, "_is_ours", lambda *_: True))

    @initialize(drop=st.booleans(), replace=st.booleans())
    def start(self, drop: bool, replace: bool) -> None:
        self._start(drop, replace)

    def _start(self, drop: bool, replace: bool) -> None:
        self.options: dict[str, Any] = {
            "limits": Limits(group_members=3, edit_window_s=-1, quota_devices=2, drop_blocked=drop),
            "has_account": lambda name: name != GHOST,
            "claim": lambda *_: replace,
            "online": USERS,
            "uploads": MemoryUploads(FILES),
        }
        still, moved = self._place(), self._place()
        still.mkdir()
        moved.mkdir()
        # Uploads of its own: which message carries a file is not the other one's business.
        self.still = SqliteStore(still, **{**self.options, "uploads": MemoryUploads(FILES)})
        self.where = str(moved)
        self.moved: SqliteStore | PostgresStore = SqliteStore(Path(self.where), **self.options)
        self._run(WARM)

    def _place(self) -> Path:
        return self.folder / str(next(self.numbers))

    @rule(batch=batches, passed=st.sampled_from([1, 1, 1000, DAY_MS, 31 * DAY_MS]))
    def batch(self, batch: list[Action], passed: int) -> None:
        self.clock += passed
        self._run(batch)
        self._compare()

    def _run(self, batch: list[Action]) -> None:
        for store in (self.still, self.moved):
            store.run([action.build(store.engine) for action in batch], self.clock)

    @rule(policy=policies)
    def compact(self, policy: Any) -> None:
        for store in (self.still, self.moved):
            ended: list[Any] = []
            store.engine.retain(policy, self.clock, ended.append)
            while not ended:
                store.engine.side_work(0)
            assert not isinstance(ended[0], StoreError), ended[0]
        self._compare()

    @rule(killed=st.booleans())
    def move(self, killed: bool) -> None:
        """To the other kind; from a store that was closed in good order, or was not."""
        (self.moved.crash if killed else self.moved.close)()
        if isinstance(self.moved, PostgresStore):
            with self.moved.database.connect("test") as connection:
                leave(connection, self.moved.me)
            target = str(self._place())
        else:
            self.databases.append(_clusters[0].create())
            target = _clusters[0].url(self.databases[-1])
        copy_store(self.where, target, lambda _: lambda _: None)
        self.where = target
        if isinstance(self.moved, PostgresStore):
            self.moved = SqliteStore(Path(target), **self.options)
        else:
            folder = self._place()
            folder.mkdir()
            self.moved = PostgresStore(target, folder, **self.options, most_at_once=self.most_at_once)
        self._compare()

    def _compare(self) -> None:
        """A user's own mark of what was acknowledged is kept with the devices in PostgreSQL."""
        looks = []
        for store in (self.still, self.moved):
            if isinstance(store, PostgresStore):
                store.engine.load()
            found = self._same(store.see(lambda view: look(view, self.clock), self.clock))
            for user in USERS:
                found[user]["numbers"] = found[user]["numbers"][:2]
            looks.append(found)
        assert looks[0] == looks[1], difference(looks[1], looks[0])

    def _same(self, seen: Any) -> Any:
        """What of a look has to be the same."""
        return seen

    def teardown(self) -> None:
        for store in (getattr(self, "still", None), getattr(self, "moved", None)):
            if store is not None:
                store.close()
        for name in self.databases:
            _clusters[0].drop(name)
        self.undo.close()


class LargeMoving(Moving):
    """Groups of two are large in PostgreSQL, and their members take what they tell after each job."""

    most_at_once = 1

    @initialize(drop=st.booleans())
    def start(self, drop: bool) -> None:
        self.undo.enter_context(patch("mqtt_im.store.postgres.taking.MEMBERS", 1))
        self._start(drop, False)

    def _run(self, batch: list[Action]) -> None:
        for action in batch:
            super()._run([action])
            if isinstance(self.moved, PostgresStore):
                self.moved.run([PullJob(USERS, "", ignore)], self.clock)

    def _same(self, seen: Any) -> Any:
        return seen if not isinstance(self.moved, PostgresStore) else bare(seen)


@pytest.fixture
def cluster(postgres: Cluster) -> Iterator[Cluster]:
    _clusters.append(postgres)
    yield postgres
    _clusters.clear()


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Moving, LargeMoving])
def test_a_store_that_is_moved_is_the_same(machine: type[Moving], cluster: Cluster) -> None:
    few = settings(max_examples=6, stateful_step_count=12, phases=[Phase.generate])
    long = settings.get_current_profile_name() != "default"
    run_state_machine_as_test(machine, settings=None if long else few)
