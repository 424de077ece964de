"""Large groups against the twin in memory, which writes out everything at once: groups of two are large here.

In one machine every batch is one job, and everybody takes what there is after it, at one node or another: then nothing can be
told from the twin. In the other one batches are long and inboxes lag, so that what several conversations tell stands in another
order, and what each one tells in its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from mqtt_im.core.model import Conv
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import PullJob
from mqtt_im.store.postgres import telling, wire
from mqtt_im.store.postgres.errors import Lost
from mqtt_im.store.queries import pages

from .actions import _WEIGHED, USERS, Action, ignore, requests
from .looking import ALL, bare
from .test_postgres import Node, PostgresMachine


class Large(PostgresMachine):
    """Everybody takes what there is after each batch."""

    most_at_once = 1

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0

    def _decided(self, user: str, pos: int) -> bool:
        """What large groups have told is in the inbox, and is replaced when what replaces it is taken (`_settle`)."""
        if not any(claimed[:2] == (user, pos) for claimed in self.decided):
            return False
        return super()._decided(user, pos)

    def _outcomes(self, found: Any, wanted: Any) -> tuple[Any, Any]:
        for one, other in zip(found.get("commits", ()), wanted.get("commits", ()), strict=True):
            mine, twins = (msgspec.msgpack.decode(commit["record"]) for commit in (one, other))
            if mine[0] != twins[0] or len(mine) != len(twins):
                continue
            if self._is_large(mine):
                for commit in (one, other):
                    for name in ("record", "to", "away", "items"):
                        commit[name] = None
        return found, wanted

    def _is_large(self, record: list[Any]) -> bool:
        return str(record[2])[:1] == "#"

    def _kept(self, node: Node, batch: list[Action]) -> None:
        for action in batch:
            super()._kept(node, [action])
            self._pull()

    def _pull(self) -> None:
        self.turn += 1
        node = self.nodes[self.turn % len(self.nodes)]
        job = PullJob(USERS, "", ignore)
        node.store.run([job], self.clock, self.passed)
        assert job.refusal is None and not job.more
        self._settle(node)

    def _settle(self, node: Node) -> None:
        """What the node has replaced in inboxes is replaced in the twin's too, which had decided that earlier."""
        for user, pos in node.store.settled:
            owner = self.twin.state.user(user)
            assert self.twin.state.items(owner, pos - 1, 1)[0][1] > 0, "it is replaced once"
            self.twin.state.void_item(owner, pos, Conv(0, "#"))
        node.store.settled.clear()

    def _hurt(self, node: Node, batch: list[Action], when: str) -> None:
        super()._hurt(node, batch[:1], when)
        self._hurt_pull(node, when)
        self._pull()

    def _hurt_pull(self, node: Node, when: str) -> None:
        """Taking from large groups is all or nothing too."""
        run = wire.Link.run

        def failing(link: wire.Link, *steps: wire.Step) -> list[wire.Answer]:
            if steps[-1].statement is not wire.COMMIT:
                return run(link, *steps)
            if when == "amid":
                run(link, *steps[:-1])
            elif when == "after":
                run(link, *steps)
            link.close()
            raise Lost("the connection to the database is lost")

        with patch.object(wire.Link, "run", failing):
            node.store.run([PullJob(USERS, "", ignore)], self.clock, self.passed)
        self._settle(node)
        if node.store.ledger.failing is not None:
            assert node.store.ledger.writer._recovered(node.store.engine)

    def _same(self, seen: Any) -> Any:
        return bare(seen)

    def _look(self, node: Node) -> None:
        self._pull()
        super()._look(node)


_CHANGING = [kind for weight, kind in _WEIGHED if weight != 4 for _ in range(weight)]


def _plainly(action: Action) -> Action:
    """The same, without what hangs on the numbers of items."""

    def build(engine: Any) -> Any:
        job: Any = action.build(engine)
        request = job.request
        if isinstance(request, rq.Send):
            request.key = None
        elif isinstance(request, rq.Hello):
            request.after = None
        elif isinstance(request, rq.Ack):
            request.pos = 0
        return job

    return Action(repr(action), build)


class Lagging(Large):
    """Batches are long, and inboxes lag behind."""

    @rule(
        which=st.integers(0, 3),
        batch=st.lists(requests().map(_plainly), min_size=1, max_size=6),
        fate=st.sampled_from([*["kept"] * 4, "before", "amid", "after", "crash"]),
        pulling=st.lists(st.sampled_from(USERS), max_size=2),
        page=st.sampled_from([1, 2, 100]),
    )
    def batch(self, which: int, batch: list[Action], fate: str, pulling: list[str], page: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        self.clock += 1
        self.passed += 1
        with patch.object(telling, "PAGE", page):
            if fate == "kept":
                PostgresMachine._kept(self, node, batch)
            else:
                PostgresMachine._hurt(self, node, batch, "amid" if fate == "crash" else fate)
                if fate == "crash":
                    node.store.crash()
                    node.store.reopen()
            if pulling:
                other = self.nodes[(which + 1) % len(self.nodes)]
                if fate in ("before", "amid", "after"):
                    self._hurt_pull(other, fate)
                other.store.run([PullJob(pulling, "", ignore)], self.clock, self.passed)

    def _compare(self, node: Node, batch: list[Action], jobs: list[Any], owed: list[Any]) -> None:
        now = node.store.engine.now
        for job, twin in zip(jobs, self._follow(node, batch), strict=True):
            assert (job.refusal and job.refusal.code) == (twin.refusal and twin.refusal.code), job.request
        assert self.dense == self.twin.last
        assert now == self.twin.now

    def _look(self, node: Node) -> None:
        """Everybody has, in the end, what each conversation has told, in its order; and the numbers are dense."""
        short = list(USERS)
        while short:
            job = PullJob(short, "", ignore)
            with patch.object(telling, "PAGE", 3):
                node.store.run([job], self.clock, self.passed)
            assert job.refusal is None
            short = job.more
        now = self.twin.now
        for user in USERS:
            mine = node.store.see(partial(self._inbox, user=user, now=now), now, self.passed)
            twins = self._inbox(self.twin, user=user, now=now)
            assert [pos for pos, _ in mine] == list(range(1, len(mine) + 1))
            for conv in {item["conv"] for _, item in (*mine, *twins)}:
                told, wanted = ([item for _, item in items if item["conv"] == conv] for items in (mine, twins))
                assert told == wanted, f"{user} {conv}: {told} instead of {wanted}"

    @staticmethod
    def _inbox(view: Any, *, user: str, now: int) -> list[tuple[int, dict[str, Any]]]:
        page = pages.sync(view, Who(user, "x", now), rq.Sync(after=0), ALL, ALL)
        items = [msgspec.json.decode(item) for item in page["items"]]
        return [(item.pop("pos"), {"conv": item.get("conv", ""), **item}) for item in items]


TestLarge = Large.TestCase
TestLagging = Lagging.TestCase
if settings.get_current_profile_name() == "default":
    TestLarge.settings = TestLagging.settings = settings(max_examples=8, stateful_step_count=12)
