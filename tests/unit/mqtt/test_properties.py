"""Properties of MQTT 5: the table both ways, and everything that is none."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt.reasons import MALFORMED, PROTOCOL_ERROR, Malformed

texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    props.BYTE: st.integers(0, 255),
    props.SHORT: st.integers(0, 0xFFFF),
    props.LONG: st.integers(0, 0xFFFF_FFFF),
    props.VARIABLE: st.integers(0, 268_435_455),
    props.BINARY: st.binary(max_size=40),
    props.TEXT: texts,
    props.PAIR: st.tuples(texts, texts),
}


@st.composite
def properties_of(draw: st.DrawFn, packet: str) -> list[tuple[int, Any]]:
    allowed = [identifier for identifier, row in props.TABLE.items() if packet in row.packets]
    chosen = draw(st.lists(st.sampled_from(allowed), max_size=8))
    found: list[tuple[int, Any]] = []
    for identifier in chosen:
        row = props.TABLE[identifier]
        repeatable = row.kind is props.PAIR or (identifier == props.SUBSCRIPTION_IDENTIFIER and packet == "PUBLISH")
        if repeatable or identifier not in dict(found):
            values = KINDS[row.kind] if row.values is None else st.integers(row.values.start, min(row.values.stop, 0x1_0000) - 1)
            found.append((identifier, draw(values)))
    return found


@given(st.data(), st.sampled_from(["CONNECT", "WILL", "PUBLISH", "SUBSCRIBE", "DISCONNECT", "PUBACK"]))
def test_what_is_written_is_read(data: st.DataObject, packet: str) -> None:
    written = data.draw(properties_of(packet))
    encoded = props.with_length(props.encode(*written))
    found, handed_on, end = props.decode(b"xx" + encoded + b"payload", 2, packet)
    assert end == 2 + len(encoded)
    flat = [(key, value) for key, given in found.items() for value in (given if isinstance(given, list) else [given])]
    assert sorted(map(repr, flat)) == sorted(map(repr, written))
    assert handed_on == b"".join(props.one(*each) for each in written if each[0] in props.HANDED_ON)


@given(st.binary(max_size=60))
def test_any_bytes_are_properties_or_malformed(data: bytes) -> None:
    for packet in ("CONNECT", "PUBLISH", "WILL"):
        with contextlib.suppress(Malformed):
            _, _, end = props.decode(data, 0, packet)
            assert end <= len(data)


def one(identifier: int, raw: bytes) -> bytes:
    return bytes((1 + len(raw), identifier)) + raw


@pytest.mark.parametrize(
    ("encoded", "reason", "code"),
    [
        (b"", "too_short", MALFORMED),
        (b"\5\1\0", "too_short", MALFORMED),
        (b"\x80\x00", "variable_integer", MALFORMED),
        (b"\xff\xff\xff\xff\x01", "variable_integer", MALFORMED),
        (one(0x00, b"\0"), "property", MALFORMED),
        (one(0x7F, b"\0"), "property", MALFORMED),
        (one(props.SESSION_EXPIRY, b"\0\0\0\1"), "property", MALFORMED),  # not of a PUBLISH
        (one(props.MESSAGE_EXPIRY, b"\0\0\1"), "too_short", MALFORMED),
        (one(props.CONTENT_TYPE, b"\0\5a"), "too_short", MALFORMED),
        (one(props.CONTENT_TYPE, b"\0"), "too_short", MALFORMED),
        (one(props.USER_PROPERTY, b"\0\1a"), "too_short", MALFORMED),
        (one(props.CONTENT_TYPE, b"\0\1\xff"), "utf8", MALFORMED),
        (one(props.USER_PROPERTY, b"\0\1a\0\1\0"), "nul", MALFORMED),
        (b"\4\1\0\1\0", "property_twice", PROTOCOL_ERROR),
        (one(props.PAYLOAD_FORMAT, b"\2"), "property_value", PROTOCOL_ERROR),
        (one(props.SUBSCRIPTION_IDENTIFIER, b"\0"), "property_value", PROTOCOL_ERROR),
    ],
)
def test_what_is_wrong_has_its_reason_and_code(encoded: bytes, reason: str, code: int) -> None:
    with pytest.raises(Malformed) as caught:
        props.decode(encoded, 0, "PUBLISH")
    assert (caught.value.reason, caught.value.code) == (reason, code)
