"""Decoders of both versions: what is written is read, and no bytes are anything but a packet or malformed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.mqtt import V5, V311, encode, packets
from mqtt_im.mqtt.framing import body_and_end
from mqtt_im.mqtt.reasons import Malformed
from tests.support import packets as old
from tests.support import packets5 as new
from tests.support.packets import Parser

TOPICS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0+#"), min_size=1, max_size=30)
PAIRS = st.tuples(st.text("ab\u00e9", max_size=5), st.text("ab\u00e9", max_size=5))


def body(packet: bytes) -> bytes:
    at, end = body_and_end(packet, 0, 268_435_460)
    assert end == len(packet)
    return packet[at:]


@given(TOPICS, st.binary(max_size=300), st.integers(1, 0xFFFF), st.integers(0, 2), st.lists(PAIRS, max_size=4))
def test_a_publish(topic: str, payload: bytes, packet_id: int, qos: int, pairs: list[tuple[str, str]]) -> None:
    given_ = [(new.USER, pair) for pair in pairs]
    for version, data in (
        (V311, old.publish(topic, payload, qos=qos, packet_id=packet_id)),
        (V5, new.publish(topic, payload, qos=qos, packet_id=packet_id, given=given_)),
    ):
        found = packets.publish(data[0], body(data), version)
        assert (found.topic, found.payload, found.packet_id) == (topic, payload, packet_id if qos else 0)
        if version == V5:
            assert new.properties(given_) == new.varint(len(found.handed_on)) + found.handed_on


@given(st.binary(max_size=80), st.sampled_from([V311, V5]))
def test_any_bytes_are_a_packet_or_malformed(data: bytes, version: int) -> None:
    for decode in (
        lambda: packets.connect(b"\0\4MQTT" + bytes((version,)) + data),
        lambda: packets.publish(0x32, data, version),
        lambda: packets.subscribe(data, version),
        lambda: packets.unsubscribe(data, version),
        lambda: packets.disconnect(data, version),
        lambda: packets.acknowledgement(data, "PUBREC", version),
    ):
        with contextlib.suppress(Malformed, packets.OtherVersion):
            decode()


@given(
    st.lists(st.tuples(TOPICS, st.sampled_from([0, 1, 2, 4, 9, 0x1E, 0x2A])), min_size=1, max_size=5), st.integers(0, 268_435_455)
)
def test_a_subscribe(filters: list[tuple[str, int]], identifier: int) -> None:
    filters = [(name, options) for name, options in filters if not name.startswith("$share/")] or [("a", 0)]
    given_ = {new.SUB_ID: identifier} if identifier else None
    assert packets.subscribe(body(new.subscribe(7, *filters, given=given_)), V5) == (7, filters, identifier)


@pytest.mark.parametrize("code", [0x00, 0x10, 0x87, 0x99])
def test_acknowledgements(code: int) -> None:
    for kind, name in ((4, "PUBACK"), (5, "PUBREC")):
        written = new.acknowledge(kind, 300, code, {new.REASON: "why"})
        assert packets.acknowledgement(body(written), name, V5) == (300, code)
        assert packets.acknowledgement(body(new.acknowledge(kind, 300)), name, V5) == (300, 0)
    with pytest.raises(Malformed, match="reason_code"):
        packets.acknowledgement(b"\0\1\x42", "PUBACK", V5)


@given(st.lists(st.sampled_from([0, 1, 2, 0x87, 0x97, 0x9E]), min_size=1, max_size=200), st.booleans())
def test_suback_and_unsuback_are_what_the_standard_says(codes: list[int], unsuback: bool) -> None:
    (packet,) = Parser().feed(encode.suback5(513, codes, unsuback=unsuback))
    assert (packet.kind, packet.packet_id) == (old.UNSUBACK if unsuback else old.SUBACK, 513)
    assert new.codes_of(packet) == codes


def test_connack_and_disconnect_are_what_the_standard_says() -> None:
    (packet,) = Parser().feed(encode.connack5(0, True, new.properties({new.RECEIVE_MAX: 5})[1:]))
    assert new.Connack.of(packet) == new.Connack(True, 0, {new.RECEIVE_MAX: 5})
    (packet,) = Parser().feed(encode.connack5(0x87, True))
    assert new.Connack.of(packet) == new.Connack(False, 0x87, {})
    (packet,) = Parser().feed(encode.disconnect(0x8E))
    assert (packet.kind, packet.body) == (old.DISCONNECT, b"\x8e")
