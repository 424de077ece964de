"""Groups of more than 200 on PostgreSQL: what is told once comes to every member once, whoever is away or dies meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator

import psycopg
import pytest

from tests.support.im import ImClient
from tests.support.nodes import Nodes, new_nodes
from tests.support.postgres import Cluster
from tests.support.raw import eventually

pytestmark = pytest.mark.slow

OTHERS = [f"member{number}" for number in range(220)]


@pytest.fixture
def nodes(postgres: Cluster) -> Iterator[Nodes]:
    with new_nodes(postgres, 2, **{"limits.requests_per_second": 100_000}) as nodes:
        yield nodes


def bodies_of(client: ImClient) -> list[object]:
    return [item["body"] for item in client.items if "body" in item]


def dense(client: ImClient) -> bool:
    return [item["pos"] for item in client.items] == list(range(1, len(client.items) + 1))


def _has(client: ImClient, bodies: list[object]) -> None:
    """These messages of the group have come, in this order, and nothing is missing between them."""

    def told() -> list[object]:
        return [item["body"] for item in client.items if "body" in item and item["conv"] == "#all"]

    client.until(lambda: len(told()) >= len(bodies), "all messages")
    assert told() == bodies
    client.until(lambda: dense(client), "what came between")


def taken(nodes: Nodes, user: str) -> int:
    query = "SELECT m.pulled FROM member m JOIN im_user u USING (uid) WHERE u.name = %s"
    with psycopg.connect(nodes.url, autocommit=True) as connection:
        return int(connection.execute(query, (user,)).fetchall()[0][0])


def test_members_who_are_here_and_there_and_away_have_it_in_order(nodes: Nodes) -> None:
    alice, bob, carl = nodes.online(0, "alice"), nodes.online(0, "bob"), nodes.online(1, "carl")
    tablet = nodes.online(1, "bob", "tablet")
    alice.must("group.create", group="#all", members=["bob", "carl", "dave", *OTHERS])
    wanted: list[object] = []
    for number in range(40):
        alice.say("#all", number)
        wanted.append(number)
        if number % 10 == 0:
            carl.say("#all", f"carl {number}")
            wanted.append(f"carl {number}")
            alice.say("bob", f"bob {number}")
    carls = [f"carl {number}" for number in range(0, 40, 10)]
    everyone: list[tuple[ImClient, Iterable[object]]] = [(bob, wanted), (tablet, wanted), (carl, range(40)), (alice, carls)]
    for client, bodies in everyone:
        _has(client, list(bodies))
    dave = nodes.online(1, "dave")
    assert dave.ask("hello")["head"] == 45, "it is there at once"
    dave.until(lambda: len(bodies_of(dave)) >= 44, "what was told while dave was away")
    assert bodies_of(dave) == wanted and dense(dave)
    last = alice.say("#all", "last")["seq"]
    assert nodes.online(0, OTHERS[0]).ask("sync", after=0, limit=100)["items"][-1]["seq"] == last
    for client in (bob, tablet, carl, dave):
        client.wait("msg", conv="#all", seq=last)


def test_what_a_node_had_not_taken_when_it_died_another_one_does(nodes: Nodes) -> None:
    """Between the commit of the message and the member's own."""
    alice, bob = nodes.online(0, "alice"), nodes.online(1, "bob")
    alice.must("group.create", group="#all", members=["bob", *OTHERS])
    bob.wait("msg", conv="#all")
    nodes.all[1].signal(signal.SIGSTOP)
    for number in range(5):
        alice.say("#all", number)
    assert taken(nodes, "bob") == 0
    nodes.all[1].kill()
    again = nodes.online(0, "bob")
    again.until(lambda: len(bodies_of(again)) >= 5, "all messages")
    assert bodies_of(again) == list(range(5))
    assert [item["pos"] for item in again.items if "body" in item] == list(range(2, 7))


def test_what_a_node_had_taken_and_not_handed_over_when_it_died_comes_once(nodes: Nodes) -> None:
    alice = nodes.online(0, "alice")
    bob = nodes.online(1, "bob")
    alice.must("group.create", group="#all", members=["bob", *OTHERS])
    alice.say("#all", "first")
    for number in range(20):
        alice.say("#all", number)
    eventually(lambda: taken(nodes, "bob") == 21, "the inbox has it")
    nodes.all[1].kill()
    seen = {item["pos"]: item["body"] for item in bob.items if "body" in item}
    again = nodes.online(0, "bob")
    again.until(lambda: any(body == 19 for body in bodies_of(again)), "the last message")
    for item in again.items:
        if "body" in item:
            assert seen.setdefault(item["pos"], item["body"]) == item["body"]
    assert [seen[pos] for pos in sorted(seen)] == ["first", *range(20)]


def test_a_key_replaces_what_waits_for_a_slow_device(nodes: Nodes) -> None:
    """INV-12, as in a small group: one is in flight, and of those that wait behind it only the newest is offered."""
    alice, bob = nodes.online(0, "alice"), nodes.online(1, "bob")
    alice.must("group.create", group="#all", members=["bob", *OTHERS])
    bob.wait("msg", conv="#all")
    bob.must("hello", window=1)
    bob.auto_ack = False
    alice.say("#all", 1, key="k")
    first = bob.wait("msg", body=1)
    for number in range(2, 6):
        alice.say("#all", number, key="k")
        eventually(lambda number=number: taken(nodes, "bob") == number, "the inbox has it")  # type: ignore[misc]
    bob.auto_ack = True
    bob.puback(first)
    bob.wait("msg", body=5)
    assert bodies_of(bob) == [1, 5]
    assert [item["body"] for item in bob.ask("history", conv="#all", limit=5)["items"]] == [1, 2, 3, 4, 5]
