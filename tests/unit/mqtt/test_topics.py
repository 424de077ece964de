"""Topics and filters: MQTT-4.7, and the four topics that are ours (PROTOCOL §2)."""

from __future__ import annotations

from itertools import product

import pytest

from mqtt_im.mqtt.topics import matches, overlap, valid_filter, valid_topic
from mqtt_im.protocol.topics import Topics

LEVELS = ("a", "b", "$x", "")
NAMES = ["/".join(levels) for size in (1, 2, 3) for levels in product(LEVELS, repeat=size)]
FILTERS = [
    "/".join(levels) for size in (1, 2, 3) for levels in product((*LEVELS[:3], "+", "#"), repeat=size) if "#" not in levels[:-1]
]


@pytest.mark.parametrize("topic", ["a", "/", "a//b", "$SYS/x", " ", "ü", "x" * 65_535])
def test_topics_that_may_be_published_to(topic: str) -> None:
    assert valid_topic(topic)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "ü" * 32_768])
def test_topics_that_may_not(topic: str) -> None:
    assert not valid_topic(topic)


@pytest.mark.parametrize("text", ["a", "#", "+", "a/#", "+/a/+/#", "/", "$SYS/#", "+/"])
def test_filters_that_are_valid(text: str) -> None:
    assert valid_filter(text)


@pytest.mark.parametrize("text", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "\0"])
def test_filters_that_are_not(text: str) -> None:
    assert not valid_filter(text)


@pytest.mark.parametrize(
    ("text", "topic", "match"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("+", "/a", False),
        ("+/+", "/a", True),
        ("/+", "/a", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$SYS/+", "$SYS/a", True),
        ("a/+/c", "a/b/d", False),
    ],
)
def test_what_a_filter_matches(text: str, topic: str, match: bool) -> None:
    """MQTT-4.7.1, MQTT-4.7.2-1."""
    assert matches(text, topic) == match


def test_filters_overlap_where_some_topic_is_matched_by_both() -> None:
    matched = {text: {name for name in NAMES if matches(text, name)} for text in FILTERS}
    for one, other in product(FILTERS, repeat=2):
        assert overlap(one, other) == bool(matched[one] & matched[other]), (one, other)


def test_our_four_topics() -> None:
    topics = Topics("im/v1")
    assert topics.up("ann", "tel") == "im/v1/ann/tel/up"
    assert topics.user_down("ann") == "im/v1/ann/down"
    assert topics.device_down("ann", "tel") == "im/v1/ann/tel/down"
    assert topics.presence("ann") == "im/v1/ann/presence"


@pytest.mark.parametrize(
    ("topic", "ours"), [("im/v1", True), ("im/v1/x", True), ("im/v1/#", True), ("im/v10", False), ("im", False), ("#", False)]
)
def test_what_begins_with_the_prefix_is_ours(topic: str, ours: bool) -> None:
    assert Topics("im/v1").owns(topic) == ours


@pytest.mark.parametrize(
    ("topic", "user"),
    [
        ("im/v1/ann/presence", "ann"),
        ("im/v1/+/presence", None),
        ("im/v1/#", None),
        ("im/v1/ann/down", None),
        ("im/v1/ann/tel/presence", None),
        ("other/ann/presence", None),
    ],
)
def test_whose_presence_a_topic_is(topic: str, user: str | None) -> None:
    assert Topics("im/v1").presence_of(topic) == user
