"""Who is in groups while a log is gone through: as many as there is room for are in memory, and nothing else is different."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.members import change_members
from mqtt_im.core.model import Member
from mqtt_im.core.records import GroupChange
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.shares import Bounds
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.retention import groups
from mqtt_im.store.sqlite.retention.groups import Groups
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE, remove
from tests.support.retention import DAY, compact, projections
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
NAMES = [f"user{number}" for number in range(12)]


def shown(found: Groups, name: str) -> list[tuple[str, int, str, bool, list[list[int]]]]:
    def row(user: str, member: Member) -> tuple[str, int, str, bool, list[list[int]]]:
        return user, member.order, member.role, member.active, member.spans

    return [row(*item) for item in found.conv(name).members.items()]


def changed(group: str, seq: int, event: str, **fields: Any) -> GroupChange:
    return GroupChange(1, group, seq, "ann", "pc", None, 0, [], event, [], **fields)


@pytest.mark.parametrize("seed", range(10))
def test_what_stands_aside_comes_back_as_it_was(seed: int) -> None:
    dice = random.Random(seed)
    large = Groups(Bounds())
    with patch.object(groups, "MOST_MEMBERS", 20):
        small = Groups(Bounds())
    names = [f"#g{number}" for number in range(7)]
    for seq in range(1, 200):
        name = dice.choice(names)
        members = large.conv(name).members
        present = [user for user, member in members.items() if member.active]
        away = [user for user in NAMES if user not in present]
        some = dice.sample(present, min(len(present), dice.randint(1, 4)))
        if not members:
            change = changed(name, seq, "group.create", members=dice.sample(NAMES, 5))
        elif some and dice.random() < 0.4:
            change = changed(name, seq, "group.remove", members=some)
        elif some and dice.random() < 0.3:
            change = changed(name, seq, "group.role", user=some[0], role="admin")
        elif away:
            change = changed(name, seq, "group.add", members=away[:3], history_from=seq)
        else:
            continue
        large.take(change)
        if dice.random() < 0.5:
            small.take(change)
        else:  # as `apply` does, which knows of the group alone
            change_members(groups._UNTOUCHED, small.conv(name), change)
        other = dice.choice(names)
        assert shown(small, other) == shown(large, other)
        kept = sum(len(conv.members) for conv in small._convs.values())
        assert kept <= 20 + len(NAMES)
        assert small._count == kept + groups._GROUP * len(small._convs)
    assert small._aside is not None


def test_a_pass_and_a_rebuild_have_room_for_few_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INV-5, INV-16: what goes and what stays is the same."""
    monkeypatch.setattr(groups, "MOST_MEMBERS", 1)
    store = SqliteStore(tmp_path)

    def ask(now: int, *jobs: Job) -> None:
        store.run(jobs, now)
        assert [job.refusal for job in jobs] == [None] * len(jobs)

    def job(user: str, request: rq.Request) -> Job:
        return RequestJob(Who(user, "pc", 0), request, lambda _: None)

    ask(NOW, AttachJob(Who(NAMES[2], "pc", 0), lambda _: None))  # who acknowledges nothing
    for number in range(5):
        ask(NOW, job("ann", rq.GroupCreate(id=f"make{number}", group=f"#g{number}", members=NAMES[number : number + 4])))
    for turn in range(3):
        for number in range(5):
            ask(NOW, job("ann", rq.Send(id=f"{turn}-{number}", to=f"#g{number}", body=Raw(b"1"))))
            ask(NOW, job("ann", rq.GroupRemove(id=f"x{turn}-{number}", group=f"#g{number}", members=[NAMES[number + turn]])))
    ask(NOW + 40 * DAY, job("ann", rq.Send(id="last", to="#g1", body=Raw(b"2"))))
    removed = compact(store.engine, Policy(retention_days=30), NOW + 41 * DAY)
    assert removed.messages > 0
    assert check(tmp_path).problems == []
    store.engine.flusher.flush()
    before = projections(tmp_path)
    store.close()
    remove(tmp_path / PROJECTION_FILE)
    store.reopen()
    store.engine.flusher.flush()
    assert projections(tmp_path) == before
    store.close()
    assert check(tmp_path).problems == []


def test_a_pass_has_half_of_what_the_server_may_keep(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, memory_mb=150)
    assert store.engine.base()._bounds.of(6_000) == Bounds(150).of(6_000) // 2 == 500
    store.close()
