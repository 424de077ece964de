"""The store on PostgreSQL against its twin in memory: one to four nodes on one database, of which each does some of the batches.

Whatever befalls a node (a commit that fails, a connection that is lost before, amid or after it, the end of the process), what
can be seen afterwards, from every node, is what the twin shows, which has only ever heard of the batches that were kept.
"""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mqtt_im.bridge.claims import Claims
from mqtt_im.core.records import AnyRecord, DeviceChange
from mqtt_im.core.rules import Limits
from mqtt_im.postgres import connecting
from mqtt_im.postgres.connecting import Database
from mqtt_im.store.commits import Author
from mqtt_im.store.given import Given
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.memory.engine import MemoryEngine
from mqtt_im.store.postgres import committing, reading, state, wire
from mqtt_im.store.postgres.check import check
from mqtt_im.store.postgres.errors import Lost
from mqtt_im.store.postgres.large import MEMBERS
from mqtt_im.store.threads.readonly import Owed
from mqtt_im.store.wanted import Wanted
from tests.support.pgstore import PostgresStore
from tests.support.postgres import Cluster
from tests.support.uploads import MemoryUploads

from .actions import FILES, GHOST, USERS, WARM, Action, batches
from .looking import difference, outcome
from .looking import look as all_of

SMALL = {
    "mqtt_im.store.postgres.look.CHUNK": 2,
    "mqtt_im.store.postgres.locked.CHUNK": 2,
    "mqtt_im.store.postgres.inbox.CHUNK": 2,
    "mqtt_im.store.queries.pages.CHUNK": 2,
}
"""Bounds that a short test reaches, so that what happens there happens."""

_cluster: list[Cluster] = []
_url: list[str] = []


@contextlib.contextmanager
def database() -> Iterator[str]:
    """An empty store; the tables are made once."""
    if not _cluster:
        _cluster.append(Cluster())
        _cluster[0].start()
        atexit.register(_cluster[0].close)
        _url.append(_cluster[0].create())
    yield _cluster[0].url(_url[0])


class Twin(MemoryEngine):
    """Knows which server has had the delivery of each device last."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.server = 0
        self.servers: dict[tuple[str, str], int] = {}

    def delivers(self, user: str, device: str) -> bool:
        return super().delivers(user, device) and self.servers.get((user, device), self.server) == self.server

    def append(self, author: Author, record: AnyRecord) -> None:
        if isinstance(record, DeviceChange) and record.exposed:
            self.servers[record.user, record.device] = self.server
        elif isinstance(record, DeviceChange) and record.forgotten:
            self.servers.pop((record.user, record.device), None)
        super().append(author, record)

    append_soon = append


class Node:
    """One server on the database, and those who offer there."""

    def __init__(self, machine: PostgresMachine, url: str, name: str, folder: Path) -> None:
        self.claims = Claims()
        self.machine = machine
        folder.mkdir()
        self.store = PostgresStore(
            url,
            folder,
            machine.limits,
            lambda user: user != GHOST,
            self._take_back,
            self._release,
            machine.online,
            MemoryUploads(FILES),
            name,
            machine.most_at_once,
        )

    def _take_back(self, user: str, pos: int) -> bool:
        return self.claims.take_back(user, pos)

    def _release(self, user: str, pos: int) -> None:
        self.claims.release(user, pos)


class PostgresMachine(RuleBasedStateMachine):
    """Rules that do things; every one of them ends with looking at the twin and a node, or purposely does not."""

    most_at_once = MEMBERS

    def __init__(self) -> None:
        super().__init__()
        self.undo = contextlib.ExitStack()
        for name, value in SMALL.items():
            self.undo.enter_context(patch(name, value))
        # A machine that is busy with other tests is no database that does not answer.
        self.undo.enter_context(patch.dict(Database.connect.__kwdefaults__, patience_s=60.0))
        self.undo.enter_context(patch.object(connecting, "IDLE_IN_TRANSACTION_S", 60))  # nor one that has stood still itself
        self.folder = tempfile.TemporaryDirectory()
        self.online: set[str] = set()
        self.clock = self.passed = 1_000_000
        """The wall clock, and the steady one, which does not go back."""
        self.dense = 0
        """The newest log row, where each is given the next number, as the twin does."""
        begin, begin_nothing, claim = state.Work.begin, state.Work.begin_nothing, state.Work.claim
        machine = self

        def counted(work: state.Work, wanted: Wanted) -> None:
            machine.decided.clear()
            begin(work, wanted)
            work.last, work._last_of_block = machine.dense, 1 << 62

        def counted_nothing(work: state.Work, wanted: Wanted) -> None:
            machine.decided.clear()
            begin_nothing(work, wanted)
            work.last, work._last_of_block = machine.dense, 1 << 62

        def noted(work: state.Work, user: str, pos: int) -> bool:
            taken = claim(work, user, pos)
            self.decided.append((user, pos, taken))
            return taken

        note = reading.Changes.note

        def counting(changes: reading.Changes, work: state.Work) -> None:
            note(changes, work)
            machine.dense = work.last

        self.undo.enter_context(patch.object(reading.Changes, "note", counting))
        self.decided: list[tuple[str, int, bool]] = []
        """What was claimed in the batch, and with what success."""
        self.undo.enter_context(patch.object(state.Work, "begin", counted))
        self.undo.enter_context(patch.object(state.Work, "begin_nothing", counted_nothing))
        self.undo.enter_context(patch.object(state.Work, "claim", noted))
        self.undo.enter_context(patch.object(reading.View, "last", property(lambda _: machine.dense)))
        self.undo.enter_context(patch.object(committing, "ASK_S", 1.0))

    @initialize(
        nodes=st.sampled_from([1, 1, 2, 3, 4]),
        warm=st.booleans(),
        history=st.booleans(),
        window=st.sampled_from([-1, -1, 0, 10]),
        drop=st.booleans(),
        online=st.sets(st.sampled_from(USERS)),
        changes=st.sampled_from([0, 0, 2]),
        reactions=st.sampled_from([0, 0, 1]),
        quota=st.sampled_from([(0, 0, 0), (0, 0, 0), (6, 0, 1), (0, 30, 0), (9, 0, 2)]),
    )
    def start(
        self,
        nodes: int,
        warm: bool,
        history: bool,
        window: int,
        drop: bool,
        online: set[str],
        changes: int,
        reactions: int,
        quota: tuple[int, int, int],
    ) -> None:
        self.limits = Limits(
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
        url = self.undo.enter_context(database())
        empty()
        self.nodes = [Node(self, url, f"node{number}", Path(self.folder.name) / str(number)) for number in range(nodes)]
        self.twin = Twin(
            Given(self.limits, lambda user: user != GHOST, lambda *_: False, online=self.online, uploads=MemoryUploads(FILES))
        )
        self.twin.state.claim = self._decided
        if warm:
            self._kept(self.nodes[0], WARM)

    def _decided(self, user: str, pos: int) -> bool:
        """What the store decided. Of what is acknowledged the twin does not ask: the store does, and must not have had it."""
        while (claimed := self.decided.pop(0))[:2] != (user, pos):
            assert not claimed[2]
        return claimed[2]

    # What happens.

    @rule(
        which=st.integers(0, 3),
        batch=batches,
        passed=st.sampled_from([0, 1, 700, 1500, -400]),
        fate=st.sampled_from([*["kept"] * 6, "before", "amid", "after", "crash"]),
        offers=st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 2)), max_size=1),
        turned=st.sampled_from([*USERS, *[""] * 6]),
        looking=st.booleans(),
    )
    def batch(
        self,
        which: int,
        batch: list[Action],
        passed: int,
        fate: str,
        offers: list[tuple[str, int]],
        turned: str,
        looking: bool,
    ) -> None:
        """A batch meets its fate on one of the nodes."""
        node = self.nodes[which % len(self.nodes)]
        self.clock += passed
        self.passed += max(0, passed)
        if turned:
            self.online ^= {turned}
        for user, distance in offers:
            pos = self.twin.state.user(user).head - distance
            if pos > 0:
                node.claims.offer(user, pos)
        match fate:
            case "kept":
                self._kept(node, batch)
            case "crash":
                self._hurt(node, batch, "amid")
                node.store.crash()
                node.claims = Claims()
                node.store.reopen()
            case _:
                self._hurt(node, batch, fate)
        if looking:
            self._look(node)

    def _kept(self, node: Node, batch: list[Action]) -> None:
        owed = self._owed(node)
        self.decided.clear()
        jobs = self._built(node, batch)
        node.store.run(jobs, self.clock, self.passed)
        self._compare(node, batch, jobs, owed)

    @staticmethod
    def _built(node: Node, batch: list[Action]) -> list[Any]:
        node.store.engine.state.forget()  # other nodes may have committed since it looked last
        return [action.build(node.store.engine) for action in batch]

    def _compare(self, node: Node, batch: list[Action], jobs: list[Any], owed: list[Job]) -> None:
        """The batch was kept, and has brought about what it does to the twin."""
        if not self._writes(jobs):
            self._tells_the_time(node)  # as the reader has it: the ledger has not looked at its clock
        now = node.store.engine.now
        if self._writes(jobs):
            self._twin_runs(node, owed, now)
        expected = self._follow(node, batch)
        for action, job, twin in zip(batch, jobs, expected, strict=True):
            found, wanted = self._outcomes(outcome(job, now), outcome(twin, now))
            assert found == wanted, f"{action}: {difference(found, wanted)}"
        assert not any(taken for _, _, taken in self.decided)
        assert self.dense == self.twin.last

    def _outcomes(self, found: Any, wanted: Any) -> tuple[Any, Any]:
        """What came of a job, as far as it has to be the same."""
        return found, wanted

    def _same(self, seen: Any) -> Any:
        """What of a look has to be the same."""
        return seen

    def _tells_the_time(self, node: Node) -> None:
        engine = node.store.engine
        engine.now = max(engine.now, self.clock)
        engine.behind, engine.ahead = engine.now - self.passed, node.store.clock.now().ahead

    @staticmethod
    def _writes(jobs: list[Any]) -> bool:
        return not all(job.reads for job in jobs)

    def _follow(self, node: Node, batch: list[Action]) -> list[Any]:
        jobs = [action.build(self.twin) for action in batch]
        self._twin_runs(node, jobs, node.store.engine.now)
        return jobs

    def _twin_runs(self, node: Node, jobs: list[Any], now: int) -> None:
        self.twin.server = node.store.me.incarnation
        self.twin.offered_upto = node.store.engine.offered_upto  # type: ignore[method-assign]
        self.twin.now, self.twin.ahead = now, node.store.engine.ahead
        self.twin.run(jobs, now, node.store.engine.behind)

    def _owed(self, node: Node) -> list[Job]:
        copied = Owed()
        copied._devices.update(node.store.ledger.writer._owed._devices)
        return [copied] if copied else []

    def _hurt(self, node: Node, batch: list[Action], when: str) -> None:
        """The connection is lost with the commit; a batch that was not kept has left nothing."""
        owed = self._owed(node)
        self.decided.clear()
        run = wire.Link.run
        hurt: list[str] = []

        def failing(link: wire.Link, *steps: wire.Step) -> list[wire.Answer]:
            if steps[-1].statement is not wire.COMMIT or hurt:
                return run(link, *steps)
            hurt.append(when)
            if when == "amid":
                run(link, *steps[:-1])
            elif when == "after":
                run(link, *steps)
            link.close()
            raise Lost("the connection to the database is lost")

        jobs = self._built(node, batch)
        with patch.object(wire.Link, "run", failing):
            node.store.run(jobs, self.clock, self.passed)
        if not hurt or when == "after":
            self._compare(node, batch, jobs, owed)
            return
        self.decided.clear()
        for action, job in zip(batch, jobs, strict=True):
            assert job.commits is None
            if isinstance(job, FetchJob | CallJob):
                (twin,) = self._follow(node, [action])
                assert outcome(job, self.twin.now) == outcome(twin, self.twin.now), action
            elif job.patient:
                assert job.refusal is not None and job.refusal.code == "unavailable" and job.refusal.retry
        assert node.store.ledger.writer._recovered(node.store.engine)

    def _look(self, node: Node) -> None:
        store, twin = node.store, self.twin
        now = store.engine.now = twin.now = max(store.engine.now, twin.now, self.clock)
        twin.behind, twin.ahead = now - self.passed, store.clock.set(now, self.passed).ahead
        expected = self._same(all_of(twin, now))
        seen = self._same(store.see(lambda view: all_of(view, now), now, self.passed))
        for key, value in expected.items():
            if key in USERS:
                for one in (value, seen[key]):
                    one["numbers"] = one["numbers"][:2]  # up to where items are acknowledged is not kept with the user
            assert seen[key] == value, difference(seen[key], value, str(key))

    def teardown(self) -> None:
        try:
            if hasattr(self, "twin"):
                for node in self.nodes:
                    self._look(node)
                assert check(self.nodes[0].store.database).problems == []
        finally:
            for node in getattr(self, "nodes", ()):
                node.store.close()
            self.undo.close()
            self.folder.cleanup()


def empty() -> None:
    """Nothing is in the store, if it was made."""
    if not _cluster:
        return
    cluster, name = _cluster[0], _url[0]
    found = cluster.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'meta'", name)
    if found:
        cluster.execute(f"TRUNCATE {', '.join(table for (table,) in found)} RESTART IDENTITY", name)


TestPostgres = PostgresMachine.TestCase
if settings.get_current_profile_name() == "default":
    TestPostgres.settings = settings(max_examples=8, stateful_step_count=12)
