"""What the operator sees and does at one node is of all nodes; and what is the user's there is the user's everywhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.nodes import Nodes, new_nodes, unharmed_nodes
from tests.support.postgres import Cluster
from tests.support.raw import eventually
from tests.support.web import Answer, Events, Web

pytestmark = pytest.mark.slow
TOKEN = "an-admin-token"
CONFIG = {"auth.admin_token": TOKEN, "limits.max_page": 10}


class Operator:
    """Asks any of the nodes."""

    def __init__(self, nodes: Nodes, undo: ExitStack) -> None:
        self._clients = [undo.enter_context(Web(node.http_port, TOKEN)) for node in nodes.all]

    def call(self, node: int, method: str, path: str) -> Answer:
        return self._clients[node].ask(method, f"/api/v1/admin/{path}")

    def get(self, node: int, path: str) -> Any:
        answer = self.call(node, "GET", path)
        assert answer.status == 200, answer
        return answer.data

    def connections(self, node: int, limit: int) -> list[tuple[str, str]]:
        """User and node of every connection, a page at a time."""
        found, after = [], ""
        while True:
            page = self.get(node, f"connections?limit={limit}&after={after}")
            assert "not_answering" not in page, page
            found += [(entry["user"], entry["node"]) for entry in page["connections"]]
            if not page["more"]:
                return found
            after = page["next"]


@pytest.fixture(scope="module")
def trio(postgres: Cluster) -> Iterator[tuple[Nodes, Operator]]:
    with unharmed_nodes(postgres, 3, **CONFIG) as nodes, ExitStack() as undo:
        yield nodes, Operator(nodes, undo)


def test_every_node_lists_the_connections_of_all(trio: tuple[Nodes, Operator]) -> None:
    nodes, operator = trio
    wanted = []
    for number in range(6):
        nodes.online(number % 3, f"lister{number}")
        wanted.append((f"lister{number}", f"n{number % 3 + 1}"))
    for node in range(3):
        for limit in (2, 10):
            found = [entry for entry in operator.connections(node, limit) if entry[0].startswith("lister")]
            assert found == wanted, (node, limit)


def test_a_device_is_online_wherever_it_is_asked_for(trio: tuple[Nodes, Operator]) -> None:
    nodes, operator = trio
    nodes.online(1, "wanda", "phone")
    tablet = nodes.online(2, "wanda", "tablet")
    for node in range(3):
        eventually(lambda node=node: operator.get(node, "users/wanda")["online"], "online")  # type: ignore[misc]
        devices = {fields["device"]: fields for fields in operator.get(node, "users/wanda/devices")["devices"]}
        assert {name: (f["online"], f["protocol"], f["node"]) for name, f in devices.items()} == {
            "phone": (True, "mqtt3", "n2"),
            "tablet": (True, "mqtt3", "n3"),
        }
        assert devices["phone"]["address"] == "127.0.0.1"
    tablet.disconnect()
    eventually(lambda: not operator.get(0, "users/wanda/devices")["devices"][1]["online"], "the tablet is offline")
    assert "node" not in operator.get(0, "users/wanda/devices")["devices"][1]


def test_a_place_in_a_list_that_no_name_has(trio: tuple[Nodes, Operator]) -> None:
    nodes, operator = trio
    nodes.online(0, "listed")
    for path in ("users", "users/listed/devices", "users/listed/tokens"):
        answer = operator.call(0, "GET", f"{path}?after=a%00b")
        assert (answer.status, answer.code) == (422, "bad_field"), path


def test_a_user_is_disconnected_from_every_node(trio: tuple[Nodes, Operator]) -> None:
    nodes, operator = trio
    clients = [nodes.online(node, "dora", f"device{node}") for node in range(3)]
    other = nodes.online(1, "dorian")
    assert operator.call(0, "POST", "users/dora/disconnect").status == 204
    for client in clients:
        client.until_closed()
    other.say("dorian", "still here")
    assert operator.call(2, "DELETE", "users/dorian").status == 204  # it has an inbox, and is at another node
    other.until_closed()


def test_figures_are_told_by_node(trio: tuple[Nodes, Operator]) -> None:
    nodes, operator = trio
    for number, device in ((1, "one"), (1, "two"), (2, "three")):
        nodes.online(number, "frank", device).say("frank", 1)
    stats = operator.get(2, "stats")
    assert (stats["node"], stats["nodes"], stats["nodes_not_answering"]) == ("n3", 3, "")
    for number in (1, 2, 3):
        assert stats[f"node_n{number}_memory_bytes"] > 0 and stats[f"node_n{number}_cpu_percent"] >= 0
        text = nodes.all[number - 1].get("/metrics")[1]
        assert f'mqtt_im_node_info{{node="n{number}"}} 1.0' in text
        assert "mqtt_im_nodes 3.0" in text
    assert stats["node_n2_connections"] >= 2 and stats["node_n3_connections"] >= 1
    assert stats["node_n2_messages"] >= 2 and stats["node_n3_messages"] >= 1


def test_a_node_that_does_not_answer_is_named_and_holds_nobody_up(postgres: Cluster) -> None:
    with new_nodes(postgres, 2, **CONFIG) as nodes, ExitStack() as undo:
        operator, another = Operator(nodes, undo), Operator(nodes, undo)
        nodes.online(0, "alice")
        bob = nodes.online(1, "bob")
        eventually(lambda: len(operator.connections(0, 10)) == 2, "both are listed")
        nodes.all[1].signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as pool:  # both before it is declared dead
                disconnecting = pool.submit(another.call, 0, "POST", "users/bob/disconnect")
                page, refused = operator.get(0, "connections"), disconnecting.result()
            assert page["not_answering"] == ["n2"]
            assert [entry["user"] for entry in page["connections"]] == ["alice"]
            assert (refused.status, refused.code) == (503, "unavailable")
            assert "n2" in refused.data["detail"]
        finally:
            nodes.all[1].signal(signal.SIGCONT)
        bob.until_closed()  # what it was asked, it does when it goes on
        eventually(lambda: operator.get(0, "connections").keys() == {"connections", "more"}, "it answers again")


def test_a_user_has_one_rate_at_all_nodes(postgres: Cluster) -> None:
    limits = {"limits.requests_per_second": 2, "limits.max_body_bytes": 262_144, "limits.max_packet_bytes": 524_288}
    with new_nodes(postgres, 2, **limits) as nodes, ExitStack() as undo:
        first = nodes.online(0, "alice")
        second = undo.enter_context(Web(nodes.all[1].http_port))
        second.login("alice", "")

        def is_slowed(number: int) -> bool:
            first.request("send", id=f"large{number}", to="alice", body="x" * 200_000)  # worth the rate of many seconds
            time.sleep(1.0)  # half of the rate, which alone slows nobody
            answer = second.post("send", to="bob", body=number)
            assert answer.status == 200 or answer.code == "rate_limited", answer
            return answer.status == 429

        assert any(is_slowed(number) for number in range(8))


def test_a_ticket_is_good_at_every_node(postgres: Cluster, tmp_path: Path) -> None:
    with new_nodes(postgres, 2, **{"files.url": f"file://{tmp_path}"}) as nodes, ExitStack() as undo:
        first, second = nodes.all
        alice = undo.enter_context(Web(first.http_port))
        alice.login("alice")
        file = alice.upload(b"a file", "notes.txt", "text/plain")["id"]
        answer = alice.ask("POST", "/api/v1/ticket", {"for": f"files/{file}"})
        browser = undo.enter_context(Web(second.http_port))
        assert browser.ask("GET", answer.data["url"]).body == b"a file"  # the token was never used there
        ticket = alice.ask("POST", "/api/v1/ticket", {"for": "events"}).data["url"].removeprefix("/api/v1/events")
        with Events(second.http_port, None, ticket) as stream:
            stream.wait("welcome")
            alice.must("send", to="alice", body=1)
            assert stream.wait("msg").data["body"] == 1
        assert alice.ask("POST", "/api/v1/logout").status == 204
        with Events(second.http_port, None, ticket) as stream:
            assert stream.status == 401
