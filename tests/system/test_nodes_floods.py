"""What one user, or one node, can make of the words that nodes tell each other."""

from __future__ import annotations

import signal

import psycopg
import pytest

from tests.support.nodes import new_nodes, unharmed_nodes
from tests.support.postgres import Cluster
from tests.support.raw import eventually

pytestmark = pytest.mark.slow


def test_a_node_that_stands_still_does_not_hold_up_the_words_of_all(own_postgres: Cluster) -> None:
    """PostgreSQL keeps each notification until everybody who listens has it; for a dead node it keeps none."""
    usage = "SELECT pg_notification_queue_usage() > 0"
    with new_nodes(own_postgres, 2) as nodes:
        nodes.all[1].signal(signal.SIGSTOP)
        try:
            with psycopg.connect(nodes.url, autocommit=True) as connection:

                def piles_up() -> bool:
                    """Once there is more than what the sockets of the node that reads nothing take."""
                    connection.execute("SELECT pg_notify('mqtt_im', format('[%s]%7000s', g, '')) FROM generate_series(1, 1000) g")
                    return own_postgres.execute(usage) == [(True,)]

                eventually(piles_up, "notifications wait")
            eventually(lambda: own_postgres.execute(usage) == [(False,)], "nothing waits for a dead node")
        finally:
            nodes.all[1].signal(signal.SIGCONT)
        eventually(nodes.all[1].ready, "it is a node again")
        bob = nodes.online(1, "bob")
        nodes.online(0, "alice").say("bob", 1)
        bob.wait("msg", body=1)


def test_a_flood_in_a_large_group_is_told_whole_and_keeps_nobody_waiting(postgres: Cluster) -> None:
    limits = {"limits.requests_per_second": 100_000, "limits.max_inflight": 1000}
    with unharmed_nodes(postgres, 2, **limits) as nodes:
        alice, bob, carl = nodes.online(0, "alice"), nodes.online(1, "bob"), nodes.online(1, "carl")
        members = ["bob", *(f"member{number}" for number in range(250))]
        alice.must("group.create", group="#large", members=members)
        alice.must("hello", window=1000)
        bob.wait("msg", conv="#large")
        for number in range(100):
            alice.request("send", id=f"f{number}", to="#large", body=number)
        for turn in range(5):  # nobody else waits
            assert carl.say("carl", turn)["seq"] == turn + 1
        bodies = bob.until(lambda: [item["body"] for item in bob.items if "body" in item][99:], "all messages")
        assert bodies == [99]
        assert [item["body"] for item in bob.items if "body" in item] == list(range(100))
