"""What a store promises, whichever it is: the ledger's engine on SQLite, and its twin in memory.

A third store (tables on another database) would have to pass this suite and nothing else.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest
from msgspec import Raw

from mqtt_im.bridge.claims import Claims
from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.commits import Commit
from mqtt_im.store.interface import Engine, Readable
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import belongings, listings

ONLINE = {"bob"}
NOW = 1_000_000


class Batches(Protocol):
    """What both stores do with jobs."""

    def run(self, batch: list[Any], now: int) -> None: ...


class Store:
    """A store as its users ask it."""

    def __init__(self, batches: Batches, engine: Engine, claims: Claims) -> None:
        self.batches = batches
        self.engine = engine
        self.claims = claims
        self.done: list[Job] = []

    def job(self, user: str, request: rq.Request, device: str = "pc", packet: tuple[str, int, bool] | None = None) -> RequestJob:
        return RequestJob(Who(user, device, 0, True, "made", packet), request, self.done.append)

    def ask(self, user: str, request: rq.Request, device: str = "pc", now: int = NOW) -> RequestJob:
        job = self.job(user, request, device)
        self.batches.run([job], now)
        return job

    def say(self, user: str, to: str, body: str = "hi", now: int = NOW, **fields: Any) -> RequestJob:
        return self.ask(user, rq.Send(to=to, body=Raw(json.dumps(body).encode()), **fields), now=now)

    def attach(self, user: str, device: str) -> AttachJob:
        job = AttachJob(Who(user, device, 0), self.done.append)
        self.batches.run([job], NOW)
        return job

    def fetch(self, user: str, after: int = 0, limit: int = 100, size: int = 10**6) -> FetchJob:
        job = FetchJob(user, after, limit, size, self.done.append)
        self.batches.run([job], NOW)
        return job

    def inbox(self, user: str, device: str = "x") -> list[dict[str, Any]]:
        return [json.loads(entry.item(pos, user, device, NOW)) for pos, entry in self.fetch(user).entries]


def only(commits: list[Commit] | None) -> Commit:
    assert commits is not None
    (commit,) = commits
    return commit


def test_messages_and_items_are_numbered_without_gaps_in_one_order(store: Store) -> None:
    """INV-2, INV-3: over batches and within one, whoever sends."""
    pairs = [("ann", "bob"), ("bob", "ann"), ("cat", "bob"), ("ann", "ann"), ("bob", "cat"), ("ann", "bob")]
    jobs = [store.job(sender, rq.Send(to=to, body=Raw(b"1"))) for sender, to in pairs]
    store.batches.run(jobs[:2], NOW)
    store.batches.run(jobs[2:], NOW)
    lsns = [only(job.commits).lsn for job in jobs]
    assert lsns == sorted(set(lsns))
    for user in ("ann", "bob", "cat"):
        items = store.inbox(user)
        assert [item["pos"] for item in items] == list(range(1, len(items) + 1))
        assert [(item["conv"], item["seq"]) for item in items] == [
            (record.conv, record.seq)
            for record in (only(job.commits).record for job in jobs)
            if isinstance(record, Message) and user in record.conv
        ]
    assert [item["seq"] for item in store.inbox("ann") if item["conv"] == "ann:bob"] == [1, 2, 3]


def test_an_id_does_one_thing(store: Store) -> None:
    """INV-4: from any device, in another batch and in the same one."""
    first = store.say("ann", "bob", id="1")
    assert only(first.commits).to == [("bob", 1)]
    again = store.ask("ann", rq.Send(id="1", to="bob", body=Raw(b'"hi"')), device="tel")
    assert again.commits is None
    assert again.decision is not None and again.decision.reply is not None
    assert (again.decision.reply["dup"], again.decision.reply["seq"], again.decision.reply["pos"]) == (True, 1, 1)
    other = store.say("ann", "bob", "else", id="1")
    assert other.refusal is not None and other.refusal.code == "conflict"
    twice = [store.job("ann", rq.Send(id="2", to="bob", body=Raw(b"1"))) for _ in range(2)]
    store.batches.run(twice, NOW)
    assert twice[0].commits is not None and twice[1].commits is None
    assert len(store.inbox("bob")) == 2
    assert store.say("bob", "ann", id="1").commits is not None  # ids are each user's own


def test_a_publish_without_id_is_known_by_its_packet(store: Store) -> None:
    """INV-4, as far as it goes: DUP, session and packet identifier stand for the id."""
    send = rq.Send(to="bob", body=Raw(b"1"))
    made = []
    for packet in (("s", 7, False), ("s", 7, True), ("t", 7, True), ("s", 8, True), ("s", 7, False), ("s", 7, True)):
        job = store.job("ann", send, packet=packet)
        store.batches.run([job], NOW)
        made.append(job.commits is not None)
    assert made == [True, False, True, True, True, False]


def test_a_refused_request_leaves_nothing(store: Store) -> None:
    """INV-6: its id and its n are free, and what stands beside it in the batch is untouched."""
    store.attach("ann", "pc")
    jobs = [
        store.job("ann", rq.Send(id="1", n=1, to="#none", body=Raw(b"1"))),
        store.job("ann", rq.Send(id="1", n=1, to="bob", body=Raw(b"1"))),
    ]
    store.batches.run(jobs, NOW)
    assert [job.refusal.code if job.refusal else None for job in jobs] == ["not_member", None]
    assert jobs[0].refusal is not None and jobs[0].refusal.__traceback__ is None, (
        "its frames hold jobs, and these what came before"
    )
    assert jobs[0].commits is None and jobs[1].commits is not None
    assert [item["pos"] for item in store.inbox("bob")] == [1]


def test_n_is_committed_in_order(store: Store) -> None:
    """INV-7."""
    store.attach("ann", "pc")
    answers = []
    for n in (1, 3, 2, 2, 4, 3):
        job = store.say("ann", "bob", n=n)
        answers.append(job.refusal.expected if job.refusal else None)
    assert answers == [None, 2, None, 3, 3, None]
    assert len(store.inbox("bob")) == 3


def test_time_does_not_go_back(store: Store) -> None:
    """INV-8."""
    stamps = [only(store.say("ann", "bob", now=now).commits).record.ts for now in (NOW, NOW - 500, NOW + 1, 0)]
    assert stamps == [NOW, NOW, NOW + 1, NOW + 1]


def test_recalled_content_is_gone(store: Store) -> None:
    """INV-9: of the message and its edits, in whichever batch; and a repeat is still known."""
    secret = Raw(b'"secret"')
    store.say("ann", "bob", "secret", id="1")
    store.ask("ann", rq.Edit(id="2", conv="ann:bob", seq=1, body=secret))
    batch = [
        store.job("ann", rq.Edit(id="3", conv="ann:bob", seq=1, body=secret)),
        store.job("ann", rq.Recall(id="4", conv="ann:bob", seq=1)),
    ]
    store.batches.run(batch, NOW)
    state = store.engine.state
    records = state.records(list(range(1, only(batch[1].commits).lsn + 1))).values()
    assert not any(b"secret" in (getattr(record, "body", None) or b"") for record in records)
    assert [item["op"] for item in store.inbox("bob")] == ["msg", "edited", "edited", "recalled"]
    assert "secret" not in json.dumps(store.inbox("bob") + store.inbox("ann"))
    again, other = store.say("ann", "bob", "secret", id="1"), store.say("ann", "bob", "other", id="1")
    assert again.commits is None and again.refusal is None
    assert other.refusal is not None and other.refusal.code == "conflict"


def test_an_item_is_offered_or_replaced(store: Store) -> None:
    """INV-12."""
    store.say("ann", "bob", "one", key="k")
    assert store.claims.offer("bob", 1)
    store.say("ann", "bob", "two", key="k")
    store.say("ann", "bob", "three", key="k")
    assert not store.claims.offer("bob", 2)
    assert store.claims.offer("bob", 3)
    assert [item.get("body", item.get("why")) for item in store.inbox("bob")] == ["one", "replaced", "three"]
    assert [item.get("body") for item in store.inbox("ann", "x")] == ["one", "two", "three"]  # never in the sender's


def test_marks_only_grow(store: Store) -> None:
    """INV-15, and unread is what stands behind the mark."""
    store.attach("bob", "tel")
    for _ in range(3):
        store.say("ann", "bob")
    for seq in (2, 1, 3, 2):
        store.ask("bob", rq.Read(conv="ann:bob", seq=seq))
    for pos in (3, 1):
        store.batches.run([CursorsJob([("bob", "tel", pos, ["ann:bob", pos])], store.done.append)], NOW)
    store.say("ann", "bob")
    found = listings.convs(store.engine, Who("bob", "tel", NOW), rq.Convs(), 10, 10**6)["convs"]
    told = json.loads(bytes(found[0]))
    assert told["unread"] == 1
    assert told["receipts"]["bob"] == {"delivered": 3, "read": 3}
    device = store.engine.state.device("bob", "tel")
    assert device is not None and device.cursor == 3


def test_the_first_device_starts_at_the_beginning_and_the_others_at_the_head(store: Store) -> None:
    store.say("ann", "bob")
    first, second = store.attach("bob", "one"), store.attach("bob", "two")
    assert first.state is not None and second.state is not None
    assert (first.state.cursor, second.state.cursor, first.state.head) == (0, 1, 1)


def test_who_is_connected_is_told_and_the_others_are_named(store: Store) -> None:
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob", "cat"]))
    commit = only(store.say("cat", "#g").commits)
    assert commit.to == [("bob", 2)]
    assert sorted(commit.away) == ["ann", "cat"]
    assert commit.entry is not None
    assert json.loads(commit.entry.item(2, "bob", "x", NOW))["body"] == "hi"


def test_recipients_are_those_of_the_moment_within_a_batch(store: Store) -> None:
    """INV-3: each record's items go to who was a member just then."""
    batch = [
        store.job("ann", rq.GroupCreate(id="1", group="#g", members=["bob"])),
        store.job("bob", rq.Send(to="#g", body=Raw(b'"both"'))),
        store.job("ann", rq.GroupRemove(id="2", group="#g", members=["bob"])),
        store.job("ann", rq.Send(to="#g", body=Raw(b'"alone"'))),
        store.job("ann", rq.GroupAdd(id="3", group="#g", members=["cat", "bob"])),
        store.job("cat", rq.Send(to="#g", body=Raw(b'"all"'))),
    ]
    store.batches.run(batch, NOW)
    assert all(job.refusal is None for job in batch)
    seen = {user: [item.get("body") for item in store.inbox(user)] for user in ("ann", "bob", "cat")}
    assert seen == {
        "ann": [None, "both", None, "alone", None, "all"],
        "bob": [None, "both", None, None, "all"],
        "cat": [None, "all"],
    }


@pytest.mark.parametrize(
    ("after", "limit", "size", "expected"), [(0, 2, 10**6, [1, 2]), (1, 9, 10**6, [2, 3, 4]), (0, 9, 1, [1])]
)
def test_pages_are_bounded_but_never_empty(store: Store, after: int, limit: int, size: int, expected: list[int]) -> None:
    """INV-16."""
    for _ in range(4):
        store.say("ann", "bob")
    page = store.fetch("bob", after, limit, size)
    assert [pos for pos, _ in page.entries] == expected
    assert page.head == 4


def test_reads_of_a_batch_see_what_was_written_in_it(store: Store) -> None:
    call = CallJob(lambda engine: engine.state.user("bob").head, store.done.append)
    store.batches.run([call, store.job("ann", rq.Send(to="bob", body=Raw(b"1")))], NOW)
    assert call.result == 1


def test_a_read_that_is_refused_is_told(store: Store) -> None:
    def refuse(_: Readable) -> None:
        raise Refusal("not_member", "no")

    call = CallJob(refuse, store.done.append)
    store.batches.run([call], NOW)
    assert call.refusal is not None and call.refusal.code == "not_member"


def test_jobs_are_told_in_the_order_in_which_they_came(store: Store) -> None:
    """INV-14, the store's part of it: refusals too, and what only reads aside."""
    batch: list[Job] = [
        store.job("ann", rq.Send(to="bob", body=Raw(b"1"))),
        store.job("ann", rq.Send(to="#none", body=Raw(b"1"))),
        AttachJob(Who("bob", "pc", 0), store.done.append),
        store.job("ann", rq.Send(to="bob", body=Raw(b"2"))),
    ]
    store.batches.run(batch, NOW)
    assert store.done == batch


def test_a_forgotten_device_stays_forgotten(store: Store) -> None:
    store.attach("bob", "one")
    store.attach("bob", "two")
    store.ask("bob", rq.DeviceForget(id="1", device="two"), device="one")
    store.batches.run([CursorsJob([("bob", "two", 0, [])], store.done.append)], NOW)
    assert [device["device"] for device in belongings.devices(store.engine, Who("bob", "one", NOW))] == ["one"]
    again = store.ask("bob", rq.Send(n=5, to="ann", body=Raw(b"1")), device="two")  # n of an unknown device is ignored
    assert again.refusal is None
    assert store.engine.state.device("bob", "two") is None
