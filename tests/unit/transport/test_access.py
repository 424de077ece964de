"""Topic rules (PROTOCOL §2) without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.mqtt.topics import matches, valid_filter
from mqtt_im.protocol.topics import Topics
from mqtt_im.transport.embedded.sessions.access import Access, Claim, PlainTopics, _covers, _intersection

TOPICS = Topics("im/v1")

LEVEL = st.sampled_from(["a", "b", "+", "", "$x"])
FILTER = (
    st.lists(LEVEL, min_size=1, max_size=4)
    .flatmap(lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"]), "#"]))
    .filter(bool)
)
TOPIC = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=5).map("/".join).filter(bool)


@given(FILTER, FILTER, st.lists(TOPIC, max_size=20))
def test_an_intersection_matches_what_both_match(a: str, b: str, topics: list[str]) -> None:
    common = _intersection(a.split("/"), b.split("/"))
    if common is not None:
        assert valid_filter("/".join(common)) or common == [""]
    for topic in topics:
        both = matches(a, topic) and matches(b, topic)
        assert both == (common is not None and matches("/".join(common), topic))


@given(FILTER, FILTER, st.lists(TOPIC, max_size=20))
def test_what_covers_matches_all_of_it(wide: str, narrow: str, topics: list[str]) -> None:
    if _covers(wide.split("/"), narrow.split("/")):
        for topic in topics:
            assert matches(wide, topic) or not matches(narrow, topic)


@pytest.mark.parametrize(
    ("entries", "is_open", "is_closed"),
    [
        ((), [], ["a", "a/b"]),
        (("a/#",), ["a", "a/b", "a/b/c"], ["b", "ab"]),
        (("#",), ["a", "a/b", "im", "im/v2/x"], ["im/v1", "im/v1/alice/down", "$SYS/x"]),
        (("#", "!secret/#"), ["a"], ["secret", "secret/x"]),
        (("#", "!secret/#", "secret/ok"), ["secret/ok"], ["secret/no"]),
        (("!a", "a"), ["a"], []),
        (("im/v1/#", "$SYS/#"), ["$SYS/broker/version"], ["im/v1/alice/down"]),
        (("a/+/c",), ["a/b/c", "a//c"], ["a/c", "a/b/c/d"]),
    ],
)
def test_the_last_entry_that_matches_decides(entries: tuple[str, ...], is_open: list[str], is_closed: list[str]) -> None:
    plain = PlainTopics(TOPICS, entries)
    assert [topic for topic in is_open if not plain.is_open(topic)] == []
    assert [topic for topic in is_closed if plain.is_open(topic)] == []


@pytest.mark.parametrize(
    ("entries", "topic_filter", "may"),
    [
        (("sensors/#",), "#", True),
        (("sensors/#",), "+/a", True),
        (("sensors/#",), "other/#", False),
        (("sensors/#",), "sensors", True),
        (("sensors/#", "!sensors/#"), "#", False),
        (("#", "!secret/#"), "secret/#", False),
        (("#", "!secret/#"), "secret/+/x", False),
        (("#", "!secret/#"), "+/x", True),
        (("#", "!secret/#", "secret/ok"), "secret/+", True),
        (("#",), "$SYS/#", False),
        (("$SYS/#",), "$SYS/#", True),
        (("$SYS/#",), "#", False),
        (("im/v1/#",), "#", False),
        (("#",), "/".join(["a"] * 200), False),
    ],
)
def test_a_filter_that_can_match_nothing_open_is_known(entries: tuple[str, ...], topic_filter: str, may: bool) -> None:
    assert PlainTopics(TOPICS, entries).may_yield(topic_filter) is may


def test_claims_of_a_device_and_of_a_plain_client() -> None:
    access = Access(TOPICS, ("#",))
    expected = {
        "im/v1/alice/down": Claim.OWN,
        "im/v1/alice/#": Claim.OWN,
        "im/v1/alicia/down": Claim.NOTHING,
        "im/v1/alice": Claim.NOTHING,
        "im/v1/bob/presence": Claim.PRESENCE,
        "im/v1/b b/presence": Claim.NOTHING,
        "im/v1/bob/x/presence": Claim.NOTHING,
        "im/v1/#": Claim.NOTHING,
        "im/v10/#": Claim.PLAIN,
        "a": Claim.PLAIN,
        "#": Claim.PLAIN,
        "$share/g/a": Claim.PLAIN,
        "$SYS/#": Claim.NOTHING,
    }
    assert {topic_filter: access.claim(topic_filter, "alice", "phone") for topic_filter in expected} == expected
    for topic_filter, claim in expected.items():
        wanted = claim if claim is Claim.PLAIN else Claim.NOTHING
        assert access.claim(topic_filter, "alice", "") is wanted
        assert access.claim(topic_filter, "", "") is wanted


def test_rights_are_the_highest_of_all_filters() -> None:
    access = Access(TOPICS, ("#",))
    filters = {"im/v1/alice/down": 0, "im/v1/alice/+/down": 1, "im/v1/bob/presence": 2, "#": 2, "im/v1/alice/tablet/down": 1}
    rights = access.rights(filters, "alice", "phone")
    assert (rights.user_qos, rights.device_qos, rights.watched) == (0, 1, {"bob": 2})
    rights = access.rights({**filters, "im/v1/alice/#": 1}, "alice", "phone")
    assert (rights.user_qos, rights.device_qos, rights.watched) == (1, 1, {"bob": 2, "alice": 1})
