"""What is limited over all nodes together, and what a node has of its own."""

from __future__ import annotations

import pytest

from tests.support.im import ImClient
from tests.support.nodes import Nodes, new_nodes
from tests.support.postgres import Cluster
from tests.support.raw import Refused, eventually

pytestmark = pytest.mark.slow


def _let_in(nodes: Nodes, node: int, device: str) -> ImClient | None:
    try:
        return nodes.client(node, "alice", device)
    except Refused:
        return None


def _is_full(nodes: Nodes, node: int) -> bool:
    found = _let_in(nodes, node, "d")
    if found is not None:
        found.disconnect()  # the node had not heard of all of them yet
    return found is None


def test_a_user_has_so_many_connections_at_all_nodes(postgres: Cluster) -> None:
    with new_nodes(postgres, 2, **{"limits.max_connections_per_user": 3}) as nodes:
        first = nodes.client(0, "alice", "a")
        for node, device in ((0, "b"), (1, "c")):
            nodes.client(node, "alice", device)
        eventually(lambda: _is_full(nodes, 0) and _is_full(nodes, 1), "no room at either node")
        # Whoever moves takes its place along.
        moved = eventually(lambda: _let_in(nodes, 1, "a"), "who tried before has left, as the other node knows too")
        assert moved is not None
        first.until_closed()
        moved.disconnect()
        eventually(lambda: _let_in(nodes, 0, "d") is not None, "the place is free at the other node too")
        late = nodes.start(**{"limits.max_connections_per_user": 3})  # it is told who is there when it comes
        eventually(late.ready, "a third node")
        assert _let_in(nodes, 2, "e") is None
