"""Several nodes that work on one database at the same time: INV-2 to INV-4 hold over all of them, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from msgspec import Raw

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.postgres.connecting import Connection
from mqtt_im.postgres.nodes import leave, register
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Undecided
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.erasing import EraseJob
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.postgres import committing
from mqtt_im.store.postgres.check import check
from mqtt_im.store.postgres.errors import Lost
from mqtt_im.store.postgres.wire import COMMIT, Answer, Link, Step
from tests.support.pgstore import PostgresStore

NODES = 3
USERS = [f"u{number}" for number in range(12)]
GROUPS = ["#g", "#h"]
NOW = 1_000_000


@pytest.fixture
def nodes(database: str, tmp_path: Path) -> Iterator[list[PostgresStore]]:
    made = []
    for number in range(NODES):
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(PostgresStore(database, folder, online=USERS, name=f"node{number}"))
    yield made
    for node in made:
        node.close()


def ask(node: PostgresStore, user: str, request: rq.Request) -> RequestJob:
    job = RequestJob(Who(user, "pc", 0, token="made"), request, lambda _: None)
    node.run([job], NOW)
    return job


def together(nodes: list[PostgresStore], work: Any) -> None:
    """Each node does its work on a thread of its own."""
    problems: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number, nodes[number])
        except BaseException as error:  # noqa: BLE001 - raised below
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def a_job(dice: random.Random, number: int, count: int) -> RequestJob | CursorsJob | AttachJob:
    user, other = dice.choice(USERS), dice.choice(USERS)
    kind = dice.randrange(12)
    request: rq.Request
    if kind == 0:
        return CursorsJob([(user, "pc", dice.randrange(1, 5), [])], lambda _: None)
    if kind == 1:
        return AttachJob(Who(user, "pc", 0), lambda _: None)
    if kind == 2:
        request = rq.Read(conv=dice.choice(GROUPS), seq=1)
    elif kind == 3:
        request = rq.Recall(id=f"r{number}-{count}", conv=f"{min(user, other)}:{max(user, other)}", seq=1)
    elif kind == 4:
        request = rq.GroupAdd(id=f"a{number}-{count}", group=dice.choice(GROUPS), members=[other])
    else:
        to = dice.choice([other, other, other, dice.choice(GROUPS)])
        request = rq.Send(id=f"{number}-{count}", to=to, body=Raw(b"1"), key=dice.choice([None, None, "k"]))
    return RequestJob(Who(user, "pc", 0, token="made"), request, lambda _: None)


def test_numbers_are_dense_whoever_gives_them_out(nodes: list[PostgresStore]) -> None:
    for group in GROUPS:
        ask(nodes[0], "u0", rq.GroupCreate(id=group, group=group, members=USERS[1:6]))
    sent: list[list[Message]] = [[] for _ in nodes]

    def work(number: int, node: PostgresStore) -> None:
        dice = random.Random(number)
        count = 0
        for _ in range(25):
            jobs = [a_job(dice, number, count := count + 1) for _ in range(dice.choice([1, 4, 16]))]
            node.run(jobs, NOW)
            assert node.ledger.failing is None
            assert all(job.refusal is None or job.refusal.code != "unavailable" for job in jobs)
            sent[number] += [commit.record for job in jobs for commit in job.commits or () if isinstance(commit.record, Message)]

    together(nodes, work)
    report = check(nodes[0].database)
    assert report.problems == []
    numbers = Counter((record.conv, record.seq) for part in sent for record in part)
    assert max(numbers.values()) == 1
    assert report.messages >= len(numbers) > 100


def test_who_of_some_users_is_in_a_group_is_one_look_up(nodes: list[PostgresStore]) -> None:
    """A node asks that of everybody who is online there, when a large group has grown."""
    ask(nodes[0], "u0", rq.GroupCreate(id="g", group="#g", members=USERS[1:6]))
    ask(nodes[0], "u0", rq.GroupRemove(id="r", group="#g", members=["u3"]))
    state = nodes[1].engine.state
    assert sorted(state.present("#g", [*USERS, "nobody"])) == ["u0", "u1", "u2", "u4", "u5"]
    assert state.present("#none", USERS) == []


def test_an_id_does_one_thing_on_however_many_nodes_it_is_sent(nodes: list[PostgresStore]) -> None:
    made: list[Any] = []

    def work(_: int, node: PostgresStore) -> None:
        made.extend(ask(node, "u1", rq.Send(id=f"same{count}", to="u2", body=Raw(b"1"))) for count in range(20))

    together(nodes, work)
    assert all(job.refusal is None for job in made)
    assert len([job for job in made if job.commits]) == 20
    assert check(nodes[0].database).messages == 20


def test_one_group_is_made_once(nodes: list[PostgresStore]) -> None:
    answers: list[RequestJob] = []

    def work(number: int, node: PostgresStore) -> None:
        made = (rq.GroupCreate(id=f"c{count}", group=f"#new{count}", members=["u9"]) for count in range(5))
        answers.extend(ask(node, f"u{number}", request) for request in made)

    together(nodes, work)
    assert len([job for job in answers if job.refusal is None]) == 5
    assert {job.refusal.code for job in answers if job.refusal is not None} == {"conflict"}
    assert check(nodes[0].database).problems == []


def attach(node: PostgresStore, blind: bool = False) -> AttachJob:
    job = AttachJob(Who("u2", "pc", 0), lambda _: None, blind)
    node.run([job], NOW)
    return job


def test_a_device_that_has_gone_to_another_node_is_moved_by_that_one_alone(nodes: list[PostgresStore]) -> None:
    """What the former node still has of the old connection comes too late, and says nothing of what the new one was offered."""
    attach(nodes[0])
    for number in range(4):
        ask(nodes[number % NODES], "u1", rq.Send(to="u2", body=Raw(b"1")))
    moved = attach(nodes[1], blind=True)
    assert moved.state is not None
    assert (moved.was_exposed, moved.sent_upto, moved.state.cursor) == (True, 4, 0)
    nodes[0].run([CursorsJob([("u2", "pc", 3, ["u1:u2", 3])], lambda _: None, [("u2", "pc", True)])], NOW)
    nodes[1].run([CursorsJob([("u2", "pc", 1, ["u1:u2", 1])], lambda _: None)], NOW)
    again = attach(nodes[2], blind=True)
    assert again.state is not None
    assert (again.was_exposed, again.sent_upto, again.state.cursor) == (True, 4, 1)


def several(database: str, tmp_path: Path, count: int) -> list[PostgresStore]:
    """So many nodes, none of which knows of any item that it was offered."""
    stores = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        stores.append(PostgresStore(database, folder, claim=lambda *_: True, name=f"node{number}"))
    return stores


def test_an_item_that_may_have_been_offered_elsewhere_is_not_replaced(database: str, tmp_path: Path) -> None:
    """INV-12: only the node that has a device's delivery knows what that was offered."""
    first, second = stores = several(database, tmp_path, 2)
    ask(first, "u1", rq.Send(to="u2", body=Raw(b"1"), key="k"))
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"2"), key="k"))  # no device has come, so nothing was offered
    attach(first)
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"3"), key="k"))
    ask(first, "u1", rq.Send(to="u2", body=Raw(b"4"), key="k"))
    items = second.see(lambda view: view.state.items(view.state.user("u2"), 0, 9), NOW)
    assert [lsn < 0 for _, lsn in items] == [True, False, True, False]
    for store in stores:
        store.close()


def replaced(node: PostgresStore) -> list[bool]:
    return [lsn < 0 for _, lsn in node.see(lambda view: view.state.items(view.state.user("u2"), 0, 99), NOW)]


def test_what_came_after_a_device_has_left_is_replaced_at_any_node(database: str, tmp_path: Path) -> None:
    """INV-12: though it has left something unacknowledged. What was there then it may have, and what came after it is back."""
    first, second, third = stores = several(database, tmp_path, 3)
    attach(first)
    ask(first, "u1", rq.Send(to="u2", body=Raw(b"1")))
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"2"), key="k"))
    first.run([CursorsJob([], lambda _: None, [("u2", "pc", False)])], NOW)
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"3"), key="k"))
    assert replaced(third) == [False, False, False]
    ask(third, "u1", rq.Send(to="u2", body=Raw(b"4"), key="k"))
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"5"), key="k"))
    assert replaced(third) == [False, False, True, True, False]
    with second.database.connect("test") as connection:  # it comes to a node of a release that knows nothing of this, and goes
        connection.execute("UPDATE device SET server = %s", (second.me.incarnation,))
    ask(third, "u1", rq.Send(to="u2", body=Raw(b"6"), key="k"))
    assert replaced(third) == [False, False, True, True, False, False]
    attach(first)
    first.run([CursorsJob([], lambda _: None, [("u2", "pc", False)])], NOW)
    attach(first)
    ask(third, "u1", rq.Send(to="u2", body=Raw(b"7"), key="k"))
    ask(third, "u1", rq.Send(to="u2", body=Raw(b"8"), key="k"))
    assert replaced(third) == [False, False, True, True, False, False, False, False]
    for store in stores:
        store.close()


def test_who_has_left_a_group_has_nothing_in_hand_of_what_is_recalled_there(nodes: list[PostgresStore]) -> None:
    """It is told nothing, here or on another node, but what is in memory for it is fetched again."""
    ask(nodes[0], "u0", rq.GroupCreate(id="g", group="#g", members=["u1", "u2"]))
    ask(nodes[0], "u0", rq.Send(id="s", to="#g", body=Raw(b'"secret"')))
    ask(nodes[0], "u1", rq.GroupLeave(id="l", group="#g"))
    nodes[0].woken.clear()
    recalled = ask(nodes[0], "u0", rq.Recall(id="r", conv="#g", seq=2))
    assert recalled.commits is not None
    (commit,) = recalled.commits
    assert list(commit.former) == ["u1"] and [name for name, _ in commit.to] == ["u0", "u2"]
    ((users, _),) = nodes[0].woken
    assert sorted(users) == ["u0", "u1", "u2"]


def fetched(node: PostgresStore, after: int = 0) -> list[FetchJob]:
    """What everybody's inbox has, looked at together."""
    jobs = [FetchJob(user, after, 3, 1 << 20, lambda _: None) for user in USERS]
    for job in jobs:
        node.reader.submit(job)
    node.reader._gather(block=False)
    while len(node.reader._turns):
        node.reader.serve()
    return jobs


def shown(jobs: list[FetchJob]) -> list[list[tuple[int, bytes]]]:
    return [[(pos, entry.item(pos, job.user, "pc", 0)) for pos, entry in job.entries] for job in jobs]


def test_inboxes_that_are_looked_at_together_show_what_each_has(nodes: list[PostgresStore]) -> None:
    node = nodes[0]
    ask(node, "u0", rq.GroupCreate(id="g", group="#g", members=USERS[1:]))
    for number in range(40):  # so that some stand in chunks
        ask(node, "u1", rq.Send(id=f"s{number}", to="#g" if number % 2 else USERS[number % 12], body=Raw(b"%d" % number)))
    ask(node, "u1", rq.Recall(id="r", conv="#g", seq=3))
    ask(node, "u1", rq.Edit(id="e", conv="#g", seq=4, body=Raw(b"99")))
    alone: list[list[tuple[int, bytes]]] = []
    for after in (0, 2, 15, 100):
        fetched(node)  # so that the connection is open
        node.reader._reading.gathers = False  # type: ignore[union-attr]
        alone = shown(fetched(node, after))
        node.reader._reading.gathers = True  # type: ignore[union-attr]
        assert shown(fetched(node, after)) == alone
    assert b"recalled" in b"".join(entry for inbox in shown(fetched(node)) for _, entry in inbox)


@pytest.mark.parametrize("fault", [Lost("the connection is lost"), ValueError("a fault")])
@pytest.mark.parametrize("where", ["read_inboxes", "roll_back"])
def test_a_look_at_many_inboxes_that_fails_takes_nobody_with_it(nodes: list[PostgresStore], fault: Exception, where: str) -> None:
    """Whether it does so when it begins or when it ends: each is looked at by itself, and the next ones are as ever."""
    node = nodes[0]
    ask(node, "u0", rq.GroupCreate(id="g", group="#g", members=USERS[1:]))
    before = shown(fetched(node))
    reading = node.reader._reading
    broken = reading._state if where == "read_inboxes" else reading._link  # type: ignore[union-attr]
    with patch.object(broken, where, side_effect=fault):
        jobs = fetched(node)
    assert [job.refusal for job in jobs] == [None] * len(USERS)
    assert shown(jobs) == shown(fetched(node)) == before


def test_what_is_recalled_while_inboxes_are_looked_at_together_is_shown_to_nobody(nodes: list[PostgresStore]) -> None:
    node = nodes[0]
    ask(node, "u0", rq.GroupCreate(id="g", group="#g", members=["u1", "u2"]))
    ask(node, "u0", rq.Send(id="s", to="#g", body=Raw(b'"secret"')))
    fetched(node)
    reading = node.reader._reading
    assert reading is not None
    told: list[FetchJob] = []
    with reading.together([("u1", 0, 5), ("u2", 0, 5)]):
        for user in ("u1", "u2"):
            job = FetchJob(user, 0, 5, 1 << 20, lambda _: None)
            assert reading.run(job.finish, lambda job=job: told.append(job), node.clock.now())  # type: ignore[misc]
            if user == "u1":
                ask(node, "u0", rq.Recall(id="r", conv="#g", seq=2))
    first, second = (b"".join(entry for _, entry in inbox) for inbox in shown(told))
    assert b"secret" in first  # it was told before
    assert b"secret" not in second and b"recalled" in second


def test_a_database_that_goes_while_the_reader_comes_is_no_fault_of_this_program(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever wanted to read is told to come back, and the log has one line of it."""
    store = PostgresStore(database, tmp_path)
    store.reader.close()
    with patch.object(Connection, "execute", side_effect=psycopg.OperationalError("the connection is closed")):
        (job,) = fetched(store)[:1]
    assert job.refusal is not None and job.refusal.retry
    assert "can't be read" in caplog.text and "Traceback" not in caplog.text
    assert fetched(store)[0].refusal is None
    store.close()


@pytest.mark.parametrize("together", [False, True])
def test_what_is_replaced_while_an_inbox_is_looked_at_is_not_told_as_it_was(
    database: str, tmp_path: Path, together: bool
) -> None:
    """INV-12: whoever gets such a page would offer it, since the replacement is over by then."""
    store = PostgresStore(database, tmp_path, claim=lambda *_: True)
    ask(store, "u0", rq.Send(id="1", to="u1", key="state", body=Raw(b"1")))
    fetched(store)
    reading = store.reader._reading
    assert reading is not None
    job = FetchJob("u1", 0, 5, 1 << 20, lambda _: None)
    looks = 0

    def look(view: Any) -> None:
        nonlocal looks
        looks += 1
        job.finish(view)
        if looks == 1:
            ask(store, "u0", rq.Send(id="2", to="u1", key="state", body=Raw(b"2")))

    with reading.together([("u1", 0, 5)]) if together else nullcontext():
        assert reading.run(look, lambda: None, store.clock.now())
    assert [entry.void for _, entry in job.entries] == ["replaced", ""]
    store.close()


def test_what_retention_leaves_of_one_who_was_erased_is_in_order(database: str, tmp_path: Path) -> None:
    """Items that a former user of the name had, and that are kept, are not counted among those that are gone."""
    store = PostgresStore(database, tmp_path)
    for number in range(3):
        ask(store, "u0", rq.Send(id=str(number), to="u1", body=Raw(b"1")))
    store.run([EraseJob("u1", ["u0:u1"], lambda _: None)], NOW)
    ended: list[Any] = []
    store.engine.retain(Policy(retention_messages=2), NOW, ended.append)
    while not ended:
        store.engine.side_work(0)
    assert isinstance(ended[0], Removed) and ended[0].messages == 1
    assert check(store.database).problems == []
    store.close()


def goes_on(store: PostgresStore) -> None:
    """What was refused is the second message, once the node is one again."""
    assert store.ledger.writer._recovered(store.engine)
    assert ask(store, "u0", rq.Send(id="b", to="u1", body=Raw(b"2"))).refusal is None
    assert check(store.database).messages == 2
    store.close()


def test_a_node_that_is_declared_dead_commits_nothing_until_it_is_one_again(database: str, tmp_path: Path) -> None:
    """Its batch is refused and left out; once it has another incarnation it goes on, on the same connection."""
    store = PostgresStore(database, tmp_path)
    ask(store, "u0", rq.Send(id="a", to="u1", body=Raw(b"1")))
    with store.database.connect("test") as connection:
        leave(connection, store.me)
    refused = ask(store, "u0", rq.Send(id="b", to="u1", body=Raw(b"2")))
    assert refused.refusal is not None and refused.refusal.code == "unavailable" and refused.refusal.retry
    assert store.ledger.failing is not None and not store.ledger.writer._recovered(store.engine)
    with store.database.connect("test") as connection:
        register(store.database, connection, store.me, tmp_path)
    goes_on(store)


def test_what_was_decided_before_a_node_was_declared_dead_is_not_kept_after(database: str, tmp_path: Path) -> None:
    """Though it is a node again by the time of the commit."""
    store = PostgresStore(database, tmp_path)
    ask(store, "u0", rq.Send(id="a", to="u1", body=Raw(b"1")))
    commit = store.engine.commit

    def late() -> None:
        with store.database.connect("test") as connection:
            leave(connection, store.me)
            register(store.database, connection, store.me, tmp_path)
        commit()

    with patch.object(store.engine, "commit", late):
        refused = ask(store, "u0", rq.Send(id="b", to="u1", body=Raw(b"2")))
    assert refused.refusal is not None and refused.refusal.retry
    goes_on(store)


def test_a_batch_that_was_found_missing_can_not_come_later(database: str, tmp_path: Path) -> None:
    """What was on its way when the connection was lost reaches the database after it was asked for the batch."""
    store = PostgresStore(database, tmp_path)
    ask(store, "u0", rq.Send(id="a", to="u1", body=Raw(b"1")))
    run = Link.run
    on_the_way: list[tuple[Link, tuple[Step, ...]]] = []

    def losing(link: Link, *steps: Step) -> list[Answer]:
        if steps[-1].statement is COMMIT and len(steps) > 2:
            on_the_way.append((link, steps))
            raise Lost("the connection is lost")
        return run(link, *steps)

    with patch.object(Link, "run", losing):
        refused = ask(store, "u2", rq.Send(id="b", to="u3", body=Raw(b"2")))
    assert refused.refusal is not None and refused.refusal.retry
    ((link, steps),) = on_the_way
    assert ask(store, "u4", rq.Send(id="c", to="u5", body=Raw(b"3"))).refusal is None  # with a number above that one's
    with pytest.raises(psycopg.errors.DivisionByZero):
        link.run(*steps)
    link.close()
    assert ask(store, "u2", rq.Send(id="b", to="u3", body=Raw(b"2"))).refusal is None
    assert check(store.database).messages == 3
    store.close()


@pytest.mark.parametrize("where", ["the node was declared dead", "the database can't be asked"])
def test_what_may_have_been_committed_is_not_said_to_be_refused(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The connection is lost right behind the commit. A repeat with DUP is the same message, though it has no `id`."""
    store = PostgresStore(database, tmp_path)
    ask(store, "u0", rq.Send(id="a", to="u1", body=Raw(b"1")))
    run = Link.run

    def losing(link: Link, *steps: Step) -> list[Answer]:
        answers = run(link, *steps)
        if steps[-1].statement is COMMIT:
            if "dead" in where:
                with store.database.connect("test") as connection:
                    leave(connection, store.me)
            link.close()
            raise Lost("the connection is lost")
        return answers

    def sent(dup: bool) -> RequestJob:
        who = Who("u0", "pc", 0, packet=("session", 7, dup))
        job = RequestJob(who, rq.Send(to="u1", body=Raw(b"2")), lambda _: None)
        store.run([job], NOW)
        return job

    if "dead" not in where:
        monkeypatch.setattr(committing, "ASK_S", 0.0)
    with patch.object(Link, "run", losing):
        lost = sent(False)
    assert isinstance(lost.refusal, Undecided) and lost.refusal.retry
    if "dead" in where:
        with store.database.connect("test") as connection:
            register(store.database, connection, store.me, tmp_path)
    assert store.ledger.writer._recovered(store.engine)
    assert sent(True).refusal is None
    assert check(store.database).messages == 2
    store.close()


def test_a_device_that_comes_back_from_a_node_at_which_it_never_began_may_have_been_offered_everything(
    nodes: list[PostgresStore],
) -> None:
    """The node has let go of it, and knows nothing any more of what was in flight (MQTT-3.3.1-1)."""
    attach(nodes[0])
    for number in range(3):
        ask(nodes[number % NODES], "u1", rq.Send(to="u2", body=Raw(b"1")))
    back = attach(nodes[0], blind=True)
    assert (back.was_exposed, back.sent_upto) == (True, 3)


def test_no_device_is_served_while_it_can_not_be_committed_that_it_has_come(database: str, tmp_path: Path) -> None:
    """Else it would be said later, when another node has had it long since."""
    store = PostgresStore(database, tmp_path)
    assert attach(store).refusal is None
    with store.database.connect("test") as connection:
        leave(connection, store.me)
    refused = attach(store)
    assert refused.refusal is not None and refused.refusal.retry and refused.state is None
    assert not store.ledger.writer._owed
    sending = RequestJob(Who("u1", "pc", 0), rq.Send(id="a", to="u2", body=Raw(b"1")), lambda _: None)
    jobs = [AttachJob(Who("u2", "pc", 0), lambda _: None), sending]
    store.run(jobs, NOW)
    assert [job.refusal.code if job.refusal else None for job in jobs] == ["unavailable"] * 2
    store.close()


def test_what_the_former_node_may_have_offered_is_not_replaced_by_the_next_one_either(database: str, tmp_path: Path) -> None:
    """INV-12: also while the device is at that next one, which has not come to it again yet; what came later may be."""
    first, second, _ = stores = several(database, tmp_path, 3)
    attach(first)
    ask(first, "u1", rq.Send(to="u2", body=Raw(b"1"), key="k"))
    attach(second)
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"2"), key="k"))
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"3"), key="k"))
    items = second.see(lambda view: view.state.items(view.state.user("u2"), 0, 9), NOW)
    assert [lsn < 0 for _, lsn in items] == [False, True, False]
    second.crash()
    with second.database.connect("test") as connection:
        leave(connection, second.me)
    second.reopen()
    attach(second)
    ask(second, "u1", rq.Send(to="u2", body=Raw(b"4"), key="k"))
    items = second.see(lambda view: view.state.items(view.state.user("u2"), 0, 9), NOW)
    assert [lsn < 0 for _, lsn in items] == [False, True, False, False]
    for store in stores:
        store.close()
