"""Retention under random use: passes with random policies, some of them cut short, against a model of what must stay (INV-5).

The model knows every record that was ever committed, with the items it made, and decides by itself which must be gone. What is
left must be seen as it was seen before, and a store that was rebuilt from its log must look like the one that was not.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Container
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mqtt_im.core.records import Act, GroupChange, Message
from mqtt_im.core.rules import Limits, Who
from mqtt_im.core.rules.common import answer
from mqtt_im.core.usage import usage_of
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.common.retaining import DAY_MS, ID_DAYS
from mqtt_im.store.policy import Policy
from mqtt_im.store.queries import belongings, listings, pages
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.retention.passes import Pass
from tests.support.retention import compact
from tests.support.store import SqliteStore
from tests.unit.store.power import Power

from .actions import CONVS, GHOST, IDS, USERS, WARM, Action, batches
from .looking import ALL, difference, look
from .test_store import SMALL

SMALL_FOLDS = {
    **SMALL,
    "mqtt_im.store.sqlite.retention.base._FLUSH_ROWS": 3,
    "mqtt_im.store.sqlite.retention.passes.SLICE_ROWS": 3,
    "mqtt_im.store.sqlite.retention.passes.SLICE_WEIGHT": 12,
    "mqtt_im.store.sqlite.retention.passes.FOLD_WEIGHT": 30,
    "mqtt_im.store.sqlite.retention.folds.SLICE_ROWS": 2,
    "mqtt_im.store.sqlite.retention.folds.LOG_ROWS": 2,
    "mqtt_im.store.sqlite.retention.folds.TIDIED_PARTS": 1,
}

policies = st.builds(
    Policy,
    retention_days=st.sampled_from([0, 0, 1, 40]),
    retention_messages=st.sampled_from([0, 1, 1, 2, 3]),
    device_expiry_days=st.sampled_from([0, 0, 20]),
)


class Made:
    """A record with the items it made: `(user, pos)`."""

    def __init__(self, record: Act, items: list[tuple[str, int]]) -> None:
        self.record = record
        self.items = items
        self.gone = False


class RetentionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = [patch(name, value) for name, value in SMALL_FOLDS.items()]
        for patched in self.patches:
            patched.start()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = 1_700_000_000_000
        self.made: dict[int, Made] = {}
        self.ids: dict[tuple[str, str], int] = {}
        """Log row of each id that must be remembered."""

    @initialize(drop=st.booleans(), replace=st.booleans())
    def start(self, drop: bool, replace: bool) -> None:
        self.store = SqliteStore(
            Path(self.folder.name),
            Limits(group_members=3, edit_window_s=-1, quota_devices=2, drop_blocked=drop),
            lambda name: name != GHOST,
            claim=lambda *_: replace,
            online=USERS,
        )
        self._run(WARM)

    @rule(batch=batches, passed=st.sampled_from([1, 1, 1000, DAY_MS, 15 * DAY_MS, 31 * DAY_MS]), steps=st.integers(0, 8))
    def batch(self, batch: list[Action], passed: int, steps: int) -> None:
        self.clock += passed
        self._run(batch)
        for _ in range(steps):
            self.store.engine.flusher.step(hurry=True)

    def _run(self, batch: list[Action]) -> None:
        jobs = [action.build(self.store.engine) for action in batch]
        self.store.run(jobs, self.clock)
        for job in jobs:
            for commit in job.commits or ():
                record = commit.record
                if isinstance(record, Act):
                    assert not commit.away
                    self.made[commit.lsn] = Made(record, commit.to)
                    if record.id is not None:
                        self.ids[record.by, record.id] = commit.lsn

    @rule(
        policy=policies,
        cut=st.integers(0, 40),
        between=st.lists(batches, max_size=3),
        steps=st.integers(1, 15),
        end=st.sampled_from(["kill", "power", "trouble"]),
    )
    def retain(self, policy: Policy, cut: int, between: list[list[Action]], steps: int, end: str) -> None:
        """A pass, after one that was perhaps cut short, by the end of the server or of its disk, while others went on working."""
        if cut:
            with Power(self.store) as cable:
                free = self._begin(policy, cut, between, steps)
                if end == "trouble":
                    self.store.ledger.writer._trouble(self.store.engine, "disk full")
                    assert self.store.ledger.writer._recovered(self.store.engine)
                elif end == "power":
                    cable.cut()
                else:
                    self.store.crash()
            if end != "trouble":
                self.store.reopen()
            self._learn(policy, free)
        before = self._views()
        answers = self._answers()
        compact(self.store.engine, policy, self.clock)
        for lsn in self._decide(policy):
            self.made[lsn].gone = True
        for name in self._forgotten(policy):
            del self.ids[name]
        self._compare(before, self._views())
        assert {key: answers[key] for key in self.ids} == self._answers()
        self._rebuild()

    def _begin(self, policy: Policy, cut: int, between: list[list[Action]], steps: int) -> set[int]:
        """So many steps of a pass were made; returns the log rows of all that was free to go at one time or the other."""
        engine = self.store.engine
        free = self._decide(policy)
        work = Pass(engine, policy, self.clock)
        for number in range(cut):
            if not work.step():
                break
            if engine.flusher.writing:
                engine.flusher.step()
            if between and number % steps == steps - 1:
                self._run(between.pop())
                free |= self._decide(policy)
                self._look()
        return free

    def _learn(self, policy: Policy, free: set[int]) -> None:
        """What is not there any more is gone."""
        state = self.store.engine.state
        for lsn, made in self.made.items():
            user, pos = made.items[0]
            found = state.items(state.user(user), pos - 1, 1)
            if not made.gone and (not found or found[0][0] != pos):
                assert lsn in free
                made.gone = True
        answers = self._answers()
        for name in self._forgotten(policy):
            if name not in answers:
                del self.ids[name]

    def _rebuild(self) -> None:
        seen = self._look()
        self.store.close()
        assert check(self.store.data_dir).problems == []
        self.store.reopen(lose_projection=True)
        anew = self._look()
        assert anew == seen, difference(anew, seen)
        self.store.engine.flusher.flush()
        assert check(self.store.data_dir).problems == []

    # The model.

    def _decide(self, policy: Policy) -> set[int]:
        """The log rows of all that must go now."""
        before = self.clock - policy.retention_days * DAY_MS if policy.retention_days else 0
        held: set[tuple[str, str, str]] = set()
        free: set[int] = set()
        for lsn, made in sorted(self.made.items()):
            record = made.record
            if made.gone:
                continue
            old = record.ts < before
            if policy.retention_messages and record.seq <= self._head(record.conv) - policy.retention_messages:
                old = True
            has = all(self._has(user, pos, policy) for user, pos in made.items)
            if not isinstance(record, Message | GroupChange):
                if has and not self._is_kept(record.conv, record.seq, free) and (old or not policy.removes):
                    free.add(lsn)
                continue
            key = None
            if isinstance(record, Message) and not record.dropped and "key" in (record.extra or {}):
                key = record.by, record.conv, (record.extra or {})["key"]
            if old and has and key not in held:
                free.add(lsn)
            elif old and key is not None:
                held.add(key)
        return free

    def _forgotten(self, policy: Policy) -> list[tuple[str, str]]:
        """The ids that nobody has to remember any more."""
        found = []
        for name, lsn in self.ids.items():
            made = self.made[lsn]
            old = made.record.ts < self.clock - ID_DAYS * DAY_MS
            if policy.retention_days and not policy.retention_messages:
                # The pass looks at nothing younger.
                old = old and made.record.ts < self.clock - policy.retention_days * DAY_MS
            if made.gone and old and not isinstance(made.record, GroupChange):
                found.append(name)
        return found

    def _has(self, user: str, pos: int, policy: Policy) -> bool:
        unseen = self.clock - policy.device_expiry_days * DAY_MS if policy.device_expiry_days else 0
        devices = self.store.engine.state.devices(user).values()
        return all(device.cursor >= pos or device.seen < unseen for device in devices)

    def _head(self, conv: str) -> int:
        return self.store.engine.state.conv_for(conv).head

    def _is_kept(self, conv: str, seq: int, free: Container[int] = ()) -> bool:
        records = [made.record for lsn, made in self.made.items() if not made.gone and lsn not in free]
        return any(isinstance(one, Message | GroupChange) and (one.conv, one.seq) == (conv, seq) for one in records)

    # What is seen.

    def _look(self) -> Any:
        self.store.engine.now = self.clock
        return look(self.store.engine, self.clock)

    def _views(self) -> dict[str, Any]:
        engine = self.store.engine
        engine.now = self.clock
        found: dict[str, Any] = {}
        for user in USERS:
            who = Who(user, "pc", self.clock)
            found[user] = {
                "inbox": self._inbox(user),
                "head": engine.state.user(user).head,
                "devices": belongings.devices(engine, who),
                "convs": {told["conv"]: told for told in _plain(listings.convs(engine, who, rq.Convs(), ALL, ALL)["convs"])},
                "history": {conv: self._history(who, conv) for conv in CONVS},
            }
        return found

    def _inbox(self, user: str) -> list[dict[str, Any]]:
        page = pages.sync(self.store.engine, Who(user, "pc", self.clock), rq.Sync(after=0), ALL, ALL)
        return _plain(page["items"])

    def _history(self, who: Who, conv: str) -> list[dict[str, Any]]:
        try:
            return _plain(pages.history(self.store.engine, who, rq.History(conv=conv), ALL, ALL)["items"])
        except Refusal:
            return []

    def _answers(self) -> dict[tuple[str, str], Any]:
        found = {}
        for user in USERS:
            for name in (*IDS, "A", "B", "C"):
                record = self.store.engine.state.request(user, name)
                if record is not None:
                    found[user, name] = answer(record, name, user)
        return found

    def _compare(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for user in USERS:
            was, now = before[user], after[user]
            self._compare_usage(user)
            assert (was["head"], was["devices"]) == (now["head"], now["devices"])
            kept = {pos for made in self.made.values() if not made.gone for name, pos in made.items if name == user}
            self._compare_items(was["inbox"], now["inbox"], kept, now["head"])
            floor = self.store.engine.state.user(user).floor
            assert floor == min(kept, default=now["head"] + 1) - 1
            for conv in CONVS:
                stays = [item for item in was["history"][conv] if self._is_kept(conv, item["seq"])]
                assert now["history"][conv] == stays, conv
                if conv in now["convs"]:
                    self._compare_conv(user, was["convs"][conv], now["convs"][conv], stays)

    def _compare_usage(self, user: str) -> None:
        """What a user is said to keep is what is there."""
        engine = self.store.engine
        kept = [record for lsn, made in self.made.items() if not made.gone and (record := engine.state.record(lsn)) is not None]
        usages = [usage for record in kept if (usage := usage_of(record)) is not None and usage.user == user]
        found = engine.state.user(user)
        assert (found.kept, found.sent_bytes - found.gone_bytes) == (
            sum(usage.messages for usage in usages),
            sum(usage.size for usage in usages),
        )

    def _compare_items(self, was: list[Any], now: list[Any], kept: set[int], head: int) -> None:
        formerly = {item["pos"]: item for item in was}
        expected = 1
        for item in now:
            gone = item["op"] == "void" and item["why"] == "retention" and item["pos"] not in kept
            if gone:
                assert item["from"] == expected
                assert not kept & set(range(item["from"], item["pos"] + 1))
            else:
                assert item["pos"] == expected and expected in kept
                if (
                    item["op"] != "edited" and formerly[expected]["op"] != "edited"
                ):  # it shows the newest text as long as there is one
                    assert item == formerly[expected]
            expected = item["pos"] + 1
        assert expected == head + 1

    def _compare_conv(self, user: str, was: dict[str, Any], now: dict[str, Any], stays: list[Any]) -> None:
        member = self.store.engine.state.conv_for(now["conv"]).members[user]
        others = [item for item in stays if item["seq"] > member.read and item["from"] != user]
        unread = [item for item in others if "system" not in item and "recalled" not in item]
        assert now["unread"] == (len(unread) if member.active else 0)
        assert (now["seq"], now["receipts"]) == (was["seq"], was["receipts"])
        assert ("last" in now) == any(item["seq"] == now["seq"] for item in stays)

    def teardown(self) -> None:
        try:
            if hasattr(self, "store"):
                self._rebuild()
                self.store.close()
        finally:
            self.folder.cleanup()
            for patched in self.patches:
                patched.stop()


def _plain(items: list[Any]) -> list[Any]:
    return [json.loads(bytes(item)) for item in items]


TestRetention = RetentionMachine.TestCase
TestRetention.settings = settings(max_examples=40, stateful_step_count=20)
