"""Payloads: two codecs and zlib in, JSON or MessagePack out, and a name for everything that is wrong (PROTOCOL §3, §5)."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.codec import MAX_DEPTH, decode_request, deflate, encode_json, json_to_msgpack
from mqtt_im.protocol.faults import Unreadable

MAX = 1000
SEND = {"op": "send", "to": "bob", "body": "hi"}
REPORT = {"op": "report", "id": "1", "conv": "a:b", "seq": 1, "state": "failed"}
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def decode(payload: bytes) -> rq.Request:
    return decode_request(payload, MAX, MAX)


def refused(payload: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as refusal:
        decode(payload)
    assert not refusal.value.retry
    return refusal.value


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(values)
def test_a_body_is_the_same_whichever_way_it_came_and_goes(value: Any) -> None:
    for payload in (json.dumps({**SEND, "body": value}).encode(), pack({**SEND, "body": value})):
        try:
            request = decode_request(payload, 10_000, 10_000)
        except Unreadable:
            assert b"\\ud" in payload  # half a surrogate pair names no character
            continue
        assert isinstance(request, rq.Send)
        assert msgspec.json.decode(request.body) == value
        assert msgspec.msgpack.decode(json_to_msgpack(bytes(request.body))) == value


@pytest.mark.parametrize("payload", [encode_json(SEND), pack(SEND), b" \r\n" + encode_json(SEND)])
@pytest.mark.parametrize("packed", [False, True])
def test_codecs_are_told_apart_by_the_first_byte(payload: bytes, packed: bool) -> None:
    request = decode(zlib.compress(payload) if packed else payload)
    assert isinstance(request, rq.Send)
    assert (request.to, bytes(request.body)) == ("bob", b'"hi"')


def test_a_json_body_stays_as_it_was_written() -> None:
    request = decode(b'{"op":"send","to":"bob","body":{ "b":1.50, "a":"\\u00e9" }}')
    assert isinstance(request, rq.Send) and bytes(request.body) == b'{ "b":1.50, "a":"\\u00e9" }'


def test_unknown_fields_are_ignored() -> None:
    assert isinstance(decode(encode_json({**SEND, "colour": "red"})), rq.Send)


# Binary.


def test_binary_reaches_json_as_base64_and_comes_back() -> None:
    request = decode(pack({**SEND, "body": {"a": [b"\xff\0"]}, "push": {"icon": b"\x01"}}))
    assert isinstance(request, rq.Send)
    assert msgspec.json.decode(request.body) == {"a": [{"$bin": base64.b64encode(b"\xff\0").decode()}]}
    assert request.push == {"icon": {"$bin": "AQ=="}}
    assert msgspec.msgpack.decode(json_to_msgpack(bytes(request.body))) == {"a": [b"\xff\0"]}


@pytest.mark.parametrize("body", [{"$bin": "no base64"}, {"$bin": 1}, {"$bin": "AQ==", "more": 1}])
def test_what_only_looks_like_binary_stays_a_map(body: dict[str, object]) -> None:
    assert msgspec.msgpack.decode(json_to_msgpack(encode_json(body))) == body


def test_maps_with_numbers_as_keys_get_text_keys() -> None:
    request = decode(pack({**SEND, "body": {1: "a", 1.5: "b"}}))
    assert isinstance(request, rq.Send) and msgspec.json.decode(request.body) == {"1": "a", "1.5": "b"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({True: 1}, "True"),
        ([{None: 1}], "None"),
        ({b"x": 1}, "b'x'"),
        (msgspec.msgpack.Ext(5, b"x"), "extension"),
        ([{"at": datetime(2026, 1, 2, tzinfo=UTC)}], "timestamp"),
    ],
)
def test_what_has_no_json_form_is_refused(body: object, named: str) -> None:
    refusal = refused(pack({**SEND, "id": "1", "body": body}))
    assert (refusal.code, refusal.id) == ("bad_payload", "1")
    assert "JSON has no form of" in refusal.message and named in refusal.message


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x82\xa1a\x01\xd9\x01a\x01",  # the same text, written in two ways
        b"\x92\x01\x91\x81\xa1k\xde\x00\x02\x01\x01\x01\x02",
        b"\xdc\x00\x01\xdf\x00\x00\x00\x02\x01\x01\xc3\x02",  # 1 and true, which are one key here
    ],
)
def test_a_map_with_the_same_key_twice_is_refused(body: bytes) -> None:
    """The former value was gone without a word."""
    payload = b"\x84\xa2op\xa4send\xa2id\xa11\xa2to\xa3bob\xa4body" + body
    refusal = refused(payload)
    assert (refusal.code, refusal.id) == ("bad_payload", "1")
    assert "the same key twice" in refusal.message


@pytest.mark.parametrize(
    "body", [b"\x82\xd9\x01a\xca\x3f\x80\x00\x00\xa1b\x93\x81\x01\x02\xd0\x05\xc4\x01x", b"\xde\x00\x01\xa1a\x80"]
)
def test_what_is_not_written_in_its_shortest_form_is_taken(body: bytes) -> None:
    request = decode(b"\x84\xa2op\xa4send\xa2id\xa11\xa2to\xa3bob\xa4body" + body)
    assert isinstance(request, rq.Send)


@pytest.mark.parametrize("inside", [b"\x91", b"\x81\xa0"])
def test_keys_are_compared_in_what_is_not_too_large_for_how_deep_it_is(inside: bytes) -> None:
    """Each map was read again for each that it stood in: 60 KB of a hundred in each other took 50 ms."""
    head = b"\x84\xa2op\xa4send\xa2id\xa11\xa2to\xa3bob\xa4body" + inside * (MAX_DEPTH - 1)
    small, large = (b"\xdc" + count.to_bytes(2, "big") + b"\xd0\x01" * count for count in (100, 30_000))
    assert isinstance(decode_request(head + small, 65_536, 65_536), rq.Send)
    with pytest.raises(Unreadable, match="nested too deeply"):
        decode_request(head + large, 65_536, 65_536)


# Numbers that one of the codecs has not.


@pytest.mark.parametrize(("text", "value"), [(b"18446744073709551616", 2.0**64), (b"1" * 400, "1" * 400)])
def test_numbers_that_messagepack_has_not_are_the_nearest_it_has(text: bytes, value: object) -> None:
    assert msgspec.msgpack.decode(json_to_msgpack(text)) == value


@pytest.mark.parametrize("body", [b"1e999", b'{"a":[-1e999]}', b"1" * 5000])
def test_numbers_that_nobody_could_read_are_refused(body: bytes) -> None:
    """They were accepted once, and could then neither be compared nor be given to a MessagePack device."""
    payload = b'{"op":"send","id":"1","to":"bob","body":%b}' % body
    with pytest.raises(Unreadable) as refusal:
        decode_request(payload, 10_000, 10_000)
    assert (refusal.value.code, refusal.value.id) == ("bad_payload", "1")


@pytest.mark.parametrize("field", ["cts", "push"])
def test_integers_beyond_64_bits_are_refused_where_they_would_be_stored(field: str) -> None:
    """One such record failed the whole batch, and its client sent it again and again."""
    value: object = 2**70 if field == "cts" else {"badge": 2**70}
    refusal = refused(encode_json({**SEND, "id": "1", field: value}))
    assert (refusal.code, refusal.id) == ("bad_field", "1")
    assert refusal.message.startswith(field)


@pytest.mark.parametrize("cts", [0, -5, 1.5, 2**53])
def test_a_clock_of_the_client_may_be_any_sensible_number(cts: float) -> None:
    request = decode(encode_json({**SEND, "cts": cts}))
    assert isinstance(request, rq.Send) and request.cts == cts


# Depth.


def test_bodies_may_be_nested_a_hundred_deep() -> None:
    payload = b'{"op":"send","to":"bob","body":%b}' % nested(MAX_DEPTH)
    assert isinstance(decode(payload), rq.Send)
    assert isinstance(decode(pack(msgspec.json.decode(payload))), rq.Send)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 400, 100_000])
@pytest.mark.parametrize("shape", ["body", "push", "unknown", "result"])
def test_deeper_ones_are_refused(depth: int, shape: str) -> None:
    head = {
        "body": b'{"op":"send","to":"bob","body":',
        "push": b'{"op":"send","to":"bob","body":1,"push":{"a":',
        "unknown": b'{"op":"send","to":"bob","body":1,"x":',
        "result": b'{"op":"report","id":"1","conv":"a:b","seq":1,"state":"failed","result":',
    }[shape]
    payload = head + nested(depth) + (b"}}" if shape == "push" else b"}")
    if shape == "unknown" and (depth < 1000 or sys.version_info >= (3, 14)):  # which walks deeper before it gives up
        assert isinstance(decode_request(payload, 10**6, 10**6), rq.Send)  # what is ignored is not kept either
        return
    with pytest.raises(Unreadable) as refusal:
        decode_request(payload, 10**6, 10**6)
    assert refusal.value.code in ("bad_payload", "bad_field", "too_large")


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 400, 100_000])
@pytest.mark.parametrize("field", ["body", "x"])
def test_deeper_messagepack_is_refused(depth: int, field: str) -> None:
    payload = b"\x83" + b"".join(pack(part) for part in ("op", "send", "to", "bob", field)) + b"\x91" * depth + b"\xc0"
    with pytest.raises(Unreadable) as refusal:
        decode_request(payload, 10**6, 10**6)
    assert refusal.value.code in ("bad_payload", "bad_field")


# What is wrong, and how it is said.


@pytest.mark.parametrize(
    ("payload", "code", "request_id"),
    [
        (b"", "bad_payload", None),
        (b"hello", "bad_payload", None),
        (b"{", "bad_payload", None),
        (b"[]", "bad_payload", None),
        (b'"send"', "bad_payload", None),
        (b"1", "bad_payload", None),
        (b"\xc1", "bad_payload", None),
        (pack([1]), "bad_payload", None),
        (pack("send"), "bad_payload", None),
        (b'{"op":"send","to":"bob","body":"\xff"}', "bad_payload", None),
        (pack({"op": "send", "body": 1, "to": "x"})[:-1] + b"\xff", "bad_payload", None),
        (b'{"op":"send","id":"1","to":"bob","body":"\\ud800"}', "bad_payload", "1"),
        (b'{"op":"report","id":"1","conv":"a:b","seq":1,"state":"failed","result":"\\ud800"}', "bad_payload", "1"),
        (b"{}", "bad_field", None),
        (b'{"id":"1"}', "bad_field", "1"),
        (b'{"op":1,"id":"1"}', "bad_field", "1"),
        (b'{"op":"fly","id":"1"}', "unknown_op", "1"),
        (b'{"op":"send","id":"1","to":"bob"}', "bad_field", "1"),
        (b'{"op":"send","id":"1","to":5,"body":1}', "bad_field", "1"),
        (b'{"op":"send","id":"1","to":"a b","body":1}', "bad_field", "1"),
        (b'{"op":"send","id":1,"to":"bob","body":1}', "bad_field", None),
        (b'{"op":"send","id":"","to":"bob","body":1}', "bad_field", None),
        (encode_json({**SEND, "id": "x" * 65}), "bad_field", None),
        (b"\x78\x00", "bad_payload", None),
        (zlib.compress(encode_json(SEND))[:-4], "bad_payload", None),
        (zlib.compress(encode_json(SEND)) + b"\0", "bad_payload", None),
        (zlib.compress(b""), "bad_payload", None),
        (zlib.compress(b" " * (MAX + 1)), "too_large", None),
        (encode_json({**SEND, "id": "1", "body": "x" * MAX}), "too_large", "1"),
        (pack({**SEND, "id": "1", "body": "x" * MAX}), "too_large", "1"),
        (encode_json({**SEND, "id": "1", "push": {"a": "x" * rq.MAX_PUSH_BYTES}}), "too_large", "1"),
        (
            encode_json({**REPORT, "result": "x" * MAX}),
            "too_large",
            "1",
        ),
    ],
)
def test_what_is_wrong_has_a_code_and_the_id_where_it_could_be_read(payload: bytes, code: str, request_id: str | None) -> None:
    refusal = refused(payload)
    assert (refusal.code, refusal.id) == (code, request_id)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"op": "send", "body": 1}, "to: missing"),
        ({"op": "send", "to": 5, "body": 1}, "to: Expected `str`, got `int`"),
        ({"op": "hello", "window": 0}, "window: Expected `int` >= 1"),
        ({"op": "group.create", "id": "1", "members": ["a", 5]}, "members[1]: Expected `str`, got `int`"),
        (
            {"op": "report", "id": "1", "conv": "a:b", "seq": 1, "state": "x" * 1000},
            "state: expected one of executed, failed",
        ),
        ({"op": "hello", "codec": "xml"}, "codec: expected one of json, msgpack"),
        ({"op": "hello", "ack": "x"}, "ack: expected one of transport, app"),
        ({"op": "group.role", "id": "1", "group": "#g", "user": "a", "role": "x"}, "role: expected one of owner, admin, member"),
        ({"op": "fly"}, "op: 'fly' is not known"),
        ({"op": None}, "op: expected a string"),
        ({}, "op: missing"),
    ],
)
@pytest.mark.parametrize("encode", [encode_json, pack])
def test_the_words_name_the_field(fields: dict[str, object], said: str, encode: Any) -> None:
    assert refused(encode(fields)).message == said


@pytest.mark.parametrize("more", [b"", b"x" * 300_000])
@pytest.mark.parametrize(
    ("payload", "code"),
    [(b'{"op":"send","id":"1","to":5,"body":"%b"}', "bad_field"), (b'{"id":"1","op":"fly","x":"%b"}', "unknown_op")],
)
def test_the_id_of_a_large_one_is_found_too(payload: bytes, code: str, more: bytes) -> None:
    for sent in (payload % more, pack(msgspec.json.decode(payload % more))):
        refusal = refused(sent)
        assert (refusal.code, refusal.id) == (code, "1")


def test_a_large_text_that_is_damaged_is_not_looked_through() -> None:
    """Letter by letter, and escape by escape, it took 40 ms."""
    damaged = b'{"op":"send","id":"1","to":"bob","body":"%b\\ud800"}'
    assert refused(damaged % (b"\\ud83d\\ude00" * 5_000)).id == "1"
    large = refused(damaged % (b"\\ud83d\\ude00" * 20_000))
    assert (large.id, "half a character" in large.message) == (None, True)


def test_a_map_with_other_keys_than_texts_is_no_request() -> None:
    refusal = refused(pack({1: 2, "op": "send", "id": "1"}))
    assert refusal.code == "bad_payload" and "texts" in refusal.message


def test_a_body_of_just_the_limit_is_right_and_its_encoded_bytes_count() -> None:
    body = "é" * ((MAX - 2) // 2)
    assert isinstance(decode(json.dumps({**SEND, "body": body}, ensure_ascii=False).encode()), rq.Send)
    assert refused(json.dumps({**SEND, "body": body + "é"}, ensure_ascii=False).encode()).code == "too_large"


def test_a_report_has_a_result_or_none() -> None:
    fields = {"op": "report", "id": "1", "conv": "a:b", "seq": 1, "state": "executed"}
    for encode in (encode_json, pack):
        for given_, stored in (({}, b""), ({"result": None}, b"null"), ({"result": {"a": 1}}, b'{"a":1}')):
            request = decode(encode({**fields, **given_}))
            assert isinstance(request, rq.Report) and bytes(request.result) == stored


# Out.


def test_what_grows_by_compression_stays_as_it_is() -> None:
    assert deflate(b"ab") == b"ab"
    long = b"ab" * 500
    packed = deflate(long)
    assert packed[0] == 0x78 and zlib.decompress(packed) == long


def test_raw_parts_of_a_reply_are_spliced() -> None:
    assert encode_json({"items": [msgspec.Raw(b'{ "a":1 }')]}) == b'{"items":[{ "a":1 }]}'


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b'{"op":"send","id":"m1","to":"bob","body":"Hi \\ud83d"}', "half a character"),
        (b'{"op":"send","id":"m1","to":"bob","body":"\\ude00\\ud83d"}', "half a character"),
        (b'{"op":"edit","id":"m1","conv":"a:b","seq":1,"body":{"a":"\\ud83d\\ud83d"}}', "half a character"),
        (b'{"op":"send","id":"m1","to":"bob","body":"Hi \xf0\x9f"}', "cut within a character"),
        (b'\xef\xbb\xbf{"op":"send","id":"m1","to":"bob","body":"Hi"}', "byte order mark"),
        (b'{"op":"send","id":"m1","to":"bob","body":"Hi"}\0', "NUL"),
        (b'{"op":"send","id":"m1","to":"bob","body":"Hi"}\0\0\n\0', "NUL"),
        (b'\xef\xbb\xbf{"op":"send","id":"m1","to":"bob","body":"H\xc3"}\0', "byte order mark"),
        (b'{"op":"send","id":"m1","to":"bob","body":"H\xc3"}\0', "NUL"),
        (b' {"op":"send","id":"m1","to":"bob","body":"Hi"} {"op":"send"}', "trailing"),
        (b'{"op":"send","id":"m1","to":"bob","body":NaN}', "not JSON"),
        (pack({"op": "send", "id": "m1", "to": "bob", "body": {"t": float("nan")}}), "nan"),
        (pack({"op": "send", "id": "m1", "to": "bob", "body": [float("inf")]}), "inf"),
        (pack({"op": "send", "id": "m1", "to": "bob", "body": -float("inf")}), "-inf"),
        (pack({"op": "send", "id": "m1", "to": "bob", "body": 1, "push": {"x": float("nan")}}), "nan"),
        (pack({"op": "edit", "id": "m1", "conv": "a:b", "seq": 1, "body": {1: "a", "1": "b"}}), "two keys"),
        (
            pack({"op": "report", "id": "m1", "conv": "a:b", "seq": 1, "state": "failed", "result": {1.5: 1, "1.5": 2}}),
            "two keys",
        ),
    ],
)
def test_the_fault_is_named_and_the_id_read(payload: bytes, says: str) -> None:
    refusal = refused(payload)
    assert (refusal.code, refusal.id) == ("bad_payload", "m1")
    assert says in refusal.message


@pytest.mark.parametrize(
    "body", ['"\\ud83d\\ude00"', '{"a":"\\uD83D\\uDE00 \\u00e4"}', '"\\\\ud83d"', '"\\ud83d\\ude00\\ud83d\\ude00"'], ids=str
)
def test_whole_characters_are_let_through(body: str) -> None:
    request = decode_request(b'{"op":"send","to":"bob","body":%b}' % body.encode(), MAX, MAX)
    assert isinstance(request, rq.Send) and bytes(request.body) == body.encode()


def test_a_whole_number_may_have_a_point() -> None:
    request = decode_request(b'{"op":"send","n":1.0,"to":"bob","ttl":3e1,"body":{"a": 1.0},"reply_to":2.0,"cts":5.0}', MAX, MAX)
    assert isinstance(request, rq.Send)
    assert (request.n, request.ttl, request.reply_to) == (1, 30, 2)
    assert bytes(request.body) == b'{"a": 1.0}'
    assert (refused(b'{"op":"ack","pos":1.5}').code, refused(b'{"op":"ack","pos":"1"}').code) == ("bad_field", "bad_field")
    packed = decode_request(pack({"op": "ack", "pos": 7.0}), MAX, MAX)
    assert isinstance(packed, rq.Ack) and packed.pos == 7
