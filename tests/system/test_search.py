"""PROTOCOL.md §3: `search`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.im import ImClient
from tests.system.conftest import Clients, Name


def found(client: ImClient, query: str, **fields: Any) -> list[Any]:
    """Bodies that a search finds; it is indexed off the hot path, so one that must be found is asked for again."""
    page = client.must("search", query=query, **fields)
    assert page.op == "page"
    return [item.get("body") for item in page["items"]]


def finds(client: ImClient, query: str, expected: list[Any], **fields: Any) -> None:
    """Wait until the search finds exactly this: the index may be behind by a moment."""
    seen: list[Any] = []

    def probe() -> bool:
        seen[:] = found(client, query, **fields)
        return seen == expected

    for _ in range(400):
        if probe():
            return
    raise AssertionError(f"search for {query!r} finds {seen}, not {expected}")


@pytest.fixture
def pair(im: Clients, name: Name) -> tuple[ImClient, ImClient]:
    return im.online(name("alice")), im.online(name("bob"))


Pair = tuple[ImClient, ImClient]


def test_all_words_newest_first(pair: Pair) -> None:
    alice, bob = pair
    for body in ("the quick brown fox", "a quick fox jumps", "the lazy dog", "Quick! A FOX."):
        alice.say(bob.user, body)
    for client in pair:
        finds(client, "quick fox", ["Quick! A FOX.", "a quick fox jumps", "the quick brown fox"])
        finds(client, "lazy", ["the lazy dog"])
        finds(client, "lazy fox", [])


def test_only_ones_own_conversations(pair: Pair, im: Clients, name: Name) -> None:
    alice, bob = pair
    word = name("needle").replace("-", "")
    alice.say(bob.user, word)
    finds(bob, word, [word])
    assert found(im.online(name("mallory")), word) == []


def test_what_came_before_joining_is_not_found(pair: Pair, im: Clients, name: Name) -> None:
    alice, bob = pair
    group = name("#g")
    alice.must("group.create", group=group, members=[])
    alice.say(group, "hidden treasure")
    alice.must("group.add", group=group, members=[bob.user])
    alice.say(group, "treasure found")
    finds(alice, "treasure", ["treasure found", "hidden treasure"], conv=group)
    finds(bob, "treasure", ["treasure found"], conv=group)


def test_conv_before_and_limit(pair: Pair, im: Clients, name: Name) -> None:
    alice, bob = pair
    other = alice.say(name("carol"), "apple pie")
    first = alice.say(bob.user, "apple one")
    alice.say(bob.user, "apple two")
    alice.say(bob.user, "apple three")
    conv = first["conv"]
    finds(alice, "apple", ["apple three", "apple two", "apple one"], conv=conv)
    finds(alice, "apple", ["apple three", "apple two"], conv=conv, limit=2)
    assert alice.must("search", query="apple", conv=conv, limit=2)["more"] is True
    finds(alice, "apple", ["apple pie"], conv=other["conv"])
    assert found(alice, "apple", before=first["ts"], conv=conv) == []


@pytest.mark.parametrize(
    ("text", "query"),
    [("今天天气很好", "天气"), ("東京タワーに行きました", "タワー"), ("Grüße aus Köln", "grüße"), ("naïve café", "café")],
)
def test_words_of_other_scripts(pair: Pair, text: str, query: str) -> None:
    """Words of Chinese and Japanese text are found too."""
    alice, bob = pair
    alice.say(bob.user, text)
    finds(bob, query, [text])


def test_edits_and_recalls_are_followed(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "original wording")["conv"]
    alice.say(bob.user, "regretted wording")
    finds(bob, "wording", ["regretted wording", "original wording"])
    alice.must("edit", conv=conv, seq=1, body="changed phrase")
    alice.must("recall", conv=conv, seq=2)
    finds(bob, "phrase", ["changed phrase"])
    finds(bob, "wording", [])


@pytest.mark.parametrize(
    "query", ['"', "AND", "a OR b", "x*", "NEAR(a b)", "col:x", "-x", "(", "'; DROP TABLE x; --", "\u0000", "^a"]
)
def test_a_query_is_words_and_never_syntax(pair: Pair, query: str) -> None:
    alice, bob = pair
    alice.say(bob.user, "harmless")
    assert alice.ask("search", query=query).op == "page" or alice.events[-1]["code"] == "bad_field"
    finds(bob, "harmless", ["harmless"])


@pytest.mark.parametrize("fields", [{}, {"query": 5}, {"query": "x", "limit": 0}, {"query": "x", "before": "y"}], ids=repr)
def test_search_with_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    im.online(name("alice")).refused("search", "bad_field", **fields)


def test_a_search_elsewhere_is_not_member(pair: Pair) -> None:
    pair[0].refused("search", "not_member", query="x", conv="#no-such-group")
