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


def test_a_user_has_so_many_connections_at_all_nodes(postgres: Cluster) -> None:
    with new_nodes(postgres, 2, **{"limits.max_connections_per_user": 3}) as nodes:
        first = nodes.client(0, "alice", "a")
        for node, device in ((0, "b"), (1, "c")):
            nodes.client(node, "alice", device)
        eventually(lambda: _let_in(nodes, 0, "d") is None and _let_in(nodes, 1, "d") is None, "no room at either node")
        moved = nodes.client(1, "alice", "a")  # whoever moves takes its place along
        first.until_closed()
        moved.disconnect()
        eventually(lambda: _let_in(nodes, 0, "d") is not None, "the place is free at the other node too")
        late = nodes.start(**{"limits.max_connections_per_user": 3})  # it is told who is there when it comes
        eventually(late.ready, "a third node")
        assert _let_in(nodes, 2, "e") is None
