"""The index gives what a walk over all filters would give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.mqtt.topics import matches
from mqtt_im.transport.embedded.sessions.routing import Subscriptions, TopicTree
from tests.unit.transport.test_access import FILTER, TOPIC

CHANGES = st.lists(st.tuples(st.booleans(), FILTER, st.sampled_from(["one", "two"]), st.integers(0, 2)), max_size=30)


@given(CHANGES, st.lists(TOPIC, max_size=10))
def test_subscriptions_match_like_a_walk(changes: list[tuple[bool, str, str, int]], topics: list[str]) -> None:
    index: Subscriptions[str] = Subscriptions()
    model: dict[tuple[str, str], int] = {}
    for adds, topic_filter, who, qos in changes:
        if adds:
            index.add(topic_filter, who, qos)
            model[topic_filter, who] = qos
        else:
            index.remove(topic_filter, who)
            model.pop((topic_filter, who), None)
    for topic in topics:
        expected: dict[str, int] = {}
        for (topic_filter, who), qos in model.items():
            if matches(topic_filter, topic):
                expected[who] = max(qos, expected.get(who, 0))
        assert {who: max(options) for who, options in index.match(topic).items()} == expected
    for topic_filter, who in list(model):
        index.remove(topic_filter, who)
    assert index._root.empty
    assert not index._exact


@given(st.lists(st.tuples(st.booleans(), TOPIC), max_size=30), st.lists(FILTER, max_size=10))
def test_a_topic_tree_matches_like_a_walk(changes: list[tuple[bool, str]], filters: list[str]) -> None:
    tree, model = TopicTree(), set[str]()
    for adds, topic in changes:
        if adds:
            tree.add(topic)
            model.add(topic)
        else:
            tree.discard(topic)
            model.discard(topic)
    for topic_filter in filters:
        found = list(tree.match(topic_filter))
        assert len(found) == len(set(found))
        assert set(found) == {topic for topic in model if matches(topic_filter, topic)}
    for topic in list(model):
        tree.discard(topic)
    assert not tree._root.children
