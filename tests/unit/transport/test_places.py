"""How many connections a user has at other nodes."""

from __future__ import annotations

from typing import Any

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.places import Places


def keys() -> list[tuple[str, str]]:
    return [("alice", f"d{number}") for number in range(150)]


class _Others(Neighbours):
    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        super().__init__()
        self.told: list[list[Any]] = []

    def on(self, kind: str, handler: Any) -> None:
        self.handlers[kind] = handler

    def tell(self, kind: str, *fields: Any, to: int = 0) -> None:
        self.told.append([kind, *fields])


def test_a_connection_is_one_place_wherever_it_is() -> None:
    others = _Others()
    places = Places(keys, others)
    others.handlers["place"](1, ["alice", "phone", True])
    others.handlers["place"](2, ["alice", "tablet", True])
    assert places.elsewhere(("alice", "laptop")) == 2
    assert places.elsewhere(("alice", "phone")) == 1  # it would leave its place there
    assert places.elsewhere(("bob", "phone")) == 0
    others.handlers["place"](2, ["alice", "phone", True])
    others.handlers["place"](1, ["alice", "phone", False])  # it has moved from the one to the other
    assert places.elsewhere(("alice", "laptop")) == 2
    for node in (1, 2):
        others.handlers["place"](node, ["alice", "\0001", True])  # without a name nobody takes over
    assert places.elsewhere(("alice", "\0001")) == 4


def test_what_a_node_tells_anew_replaces_what_it_told_and_a_dead_one_has_none() -> None:
    others = _Others()
    places = Places(keys, others)
    gone = others.on_left[-1]
    others.handlers["places"](1, [[["alice", "a"], ["alice", "b"]], True])
    others.handlers["places"](1, [[["alice", "c"]], False])
    assert places.elsewhere(("alice", "x")) == 3
    others.handlers["places"](1, [[["alice", "c"]], True])
    others.handlers["place"](2, ["alice", "d", True])
    assert places.elsewhere(("alice", "x")) == 2
    gone(1)
    assert places.elsewhere(("alice", "x")) == 1
    gone(2)
    assert not places._elsewhere


def test_who_comes_is_told_of_all_connections_in_pieces() -> None:
    others = _Others()
    Places(keys, others)
    others.on_joined[0](7)
    assert [(len(some), begins) for _, some, begins in others.told] == [(100, True), (50, False)]
