"""What plain subscriptions weigh is bounded, of one user and of all (INV-16)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.transport.embedded.sessions import holding
from mqtt_im.transport.embedded.sessions.holding import Holding, weight_of
from tests.unit.transport.harness import Server, on_loop

_DEEP = "a" + "/+" * 100


def test_levels_of_the_tree_count_and_those_of_a_topic_do_not() -> None:
    assert weight_of(_DEEP) > 100 * 200
    assert weight_of("a" + "/b" * 100) < 1_000


def test_above_the_bound_of_all_only_who_has_little_may_have_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST", 10 * weight_of(_DEEP))
    monkeypatch.setattr(holding, "MOST_OF_ONE", 6 * weight_of(_DEEP))
    held = Holding(Bounds())
    for user, count in (("ann", 6), ("bob", 4)):
        for _ in range(count):
            assert held.has_room(user, _DEEP)
            held.add(user, _DEEP)
    assert not held.has_room("ann", "a") and not held.has_room("bob", "a") and held.has_room("cat", "a")
    held.drop("ann", _DEEP)
    assert held.has_room("bob", "a") and held.has_room("ann", "a") and not held.has_room("ann", _DEEP * 2)
    for user, count in (("ann", 5), ("bob", 4)):
        for _ in range(count):
            held.drop(user, _DEEP)
    assert (held.bytes, held._users) == (0, {})


@on_loop
async def test_a_subscription_for_which_there_is_no_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "LITTLE", 0)
    monkeypatch.setattr(holding, "MOST_OF_ONE", 3 * weight_of("a/1/+"))
    async with Server(tmp_path, limits={"memory_mb": USUAL_MB}, plain_topics=("#",)) as server:
        client = await server.connect(clean=False)
        assert await client.subscribe(*((f"a/{number}/+", 1) for number in range(5))) == [1, 1, 1, 0x80, 0x80]
        assert await client.subscribe(("a/0/+", 0), ("im/v1/alice/down", 1)) == [0, 1]
        plain, sessions = server.hub.plain, server.hub.sessions
        session = sessions.in_memory["alice", client_name(server)]
        plain.unsubscribe(session, "a/1/+")
        plain.unsubscribe(session, "a/1/+")
        assert plain.has_room(session, "a/7/+") and not plain.has_room(session, "a/7/+/+/+")
        plain.subscribe(session, "$share/g/a/8", 1)
        plain.subscribe(session, "$share/g/a/8", 0)
        plain.unsubscribe(session, "$share/g/a/8")
        for name in ("a/0/+", "a/2/+"):
            plain.unsubscribe(session, name)
        assert plain.holding.bytes == 0


def client_name(server: Server) -> str:
    ((_, name),) = server.hub.sessions.in_memory
    return name


@on_loop
async def test_long_topics_are_not_remembered(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("a/#",)) as server:
        plain = server.hub.access.plain
        assert plain.is_open("a/" + "x" * 60_000) and not plain.is_open("b" + "x" * 60_000)
        assert plain._known.cache_info().currsize == 0
        assert plain.is_open("a/b") and not plain.is_open("b")
