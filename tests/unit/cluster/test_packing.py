"""What nodes tell each other, in notifications and out of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.cluster.packing import Packer, Unpacker

ME, OTHER = 7, 8
long = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=4), st.integers(1, 20_000))
texts = st.one_of(st.text(max_size=50), long)
messages = st.lists(st.tuples(st.sampled_from([0, ME, OTHER]), texts), max_size=12)


@given(messages)
def test_what_is_packed_comes_out_in_order_where_it_is_for(sent: list[tuple[int, str]]) -> None:
    packed = list(Packer().packed([[1, to, "say", text] for to, text in sent]))
    assert all(len(payload.encode()) <= 7_999 for _, payload in packed)
    assert len(set(packed)) == len(packed)  # PostgreSQL leaves out what is the same in one transaction
    unpacker = Unpacker()
    got: list[list[Any]] = [message for to, payload in packed if to in (0, ME) for message in unpacker.unpacked(payload, ME)]
    assert [message[3] for message in got] == [text for to, text in sent if to in (0, ME)]


def test_a_long_message_whose_beginning_was_missed_is_none() -> None:
    first, *rest = (payload for _, payload in Packer().packed([[1, 0, "say", "x" * 30_000], [1, 0, "say", "y"]]))
    unpacker = Unpacker()
    assert [message for payload in rest for message in unpacker.unpacked(payload, ME)] == [[1, 0, "say", "y"]]
    unpacker.unpacked(first, ME)
    unpacker.forget()
    assert [message for payload in rest for message in unpacker.unpacked(payload, ME)] == [[1, 0, "say", "y"]]


def test_what_cannot_be_told_keeps_nothing_from_what_can() -> None:
    """Else the node would send it again with every connection, and nothing else ever again."""
    sent: list[list[Any]] = [[1, 0, "say", "a"], [1, 0, "say", b"no JSON"], [1, 0, "say", "\ud800"], [1, 0, "say", "b"]]
    got = [message for _, payload in Packer().packed(sent) for message in Unpacker().unpacked(payload, ME)]
    assert [message[3] for message in got] == ["a", "b"]
