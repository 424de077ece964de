"""Requests: each field's own rule (PROTOCOL §3)."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.codec import decode_request, encode_json
from mqtt_im.protocol.errors import ConfigError, MqttImError, Refusal, StoreError
from mqtt_im.protocol.faults import Unreadable

RIGHT: dict[str, dict[str, Any]] = {
    "send": {"to": "bob", "body": None},
    "report": {"id": "1", "conv": "a:b", "seq": 1, "state": "failed"},
    "ack": {"pos": 0},
    "hello": {},
    "sync": {"after": 0},
    "history": {"conv": "#g"},
    "convs": {},
    "read": {"conv": "a:b", "seq": 1},
    "typing": {"to": "#g", "on": True},
    "edit": {"id": "1", "conv": "a:b", "seq": 1, "body": 1},
    "recall": {"id": "1", "conv": "a:b", "seq": 1},
    "react": {"id": "1", "conv": "a:b", "seq": 1, "emoji": ""},
    "search": {"query": "x"},
    "mute": {"id": "1", "conv": "a:b", "until": 0},
    "settings": {"id": "1"},
    "group.create": {"id": "1", "members": []},
    "group.add": {"id": "1", "group": "#g", "members": ["a"]},
    "group.remove": {"id": "1", "group": "#g", "members": ["a"]},
    "group.role": {"id": "1", "group": "#g", "user": "a", "role": "admin"},
    "group.rename": {"id": "1", "group": "#g", "name": ""},
    "group.leave": {"id": "1", "group": "#g"},
    "group.info": {"group": "#g"},
    "block": {"id": "1", "user": "a"},
    "unblock": {"id": "1", "user": "a"},
    "devices": {},
    "device.forget": {"id": "1", "device": "tel"},
}
CONV, GROUP, USER = "a:", "g", "a b"
WRONG: list[tuple[str, dict[str, Any]]] = [
    *[("send", {"to": to}) for to in ("", "a b", "#", "a:b", 5, None)],
    *[("send", {"mentions": mentions}) for mentions in (["a b"], "all", ["a"] * 101, [5])],
    *[("send", {"ttl": ttl}) for ttl in (0, -1, 1.5, 2**31 + 1)],
    *[("send", {"key": key}) for key in ("", "x" * 65, 5)],
    *[("send", {"reply_to": seq}) for seq in (0, -1, "1")],
    *[("send", {"n": n}) for n in (0, -1, "1", 1.5)],
    *[("send", {"id": name}) for name in ("", "x" * 65, 5)],
    ("send", {"push": []}),
    ("send", {"cts": "now"}),
    *[(op, {"conv": CONV}) for op in ("report", "history", "read", "edit", "recall", "react", "mute", "search")],
    ("convs", {"after": 5}),
    *[(op, {"seq": 0}) for op in ("report", "read", "edit", "recall", "react")],
    *[(op, {"group": GROUP}) for op in RIGHT if op.startswith("group.")],
    *[(op, {"members": [USER]}) for op in ("group.create", "group.add", "group.remove")],
    *[(op, {"members": []}) for op in ("group.add", "group.remove")],
    *[(op, {"user": USER}) for op in ("group.role", "block", "unblock")],
    ("group.role", {"role": "king"}),
    ("group.rename", {"name": "x" * 257}),
    ("group.create", {"name": "x" * 257}),
    *[(op, {"name": "x\0"}) for op in ("group.create", "group.rename")],
    ("send", {"key": "\0"}),
    ("send", {"files": [7]}),
    ("device.forget", {"device": USER}),
    ("typing", {"to": USER}),
    ("react", {"emoji": "é" * 17}),
    ("search", {"query": ""}),
    ("search", {"query": "x" * 257}),
    *[("hello", wrong) for wrong in ({"after": -1}, {"window": 0}, {"ack": "never"}, {"codec": "xml"}, {"batch": 1}, {"n": -1})],
    *[("ack", {"pos": pos}) for pos in (-1, "1", 2**53 + 1)],
    *[(op, {"limit": 0}) for op in ("sync", "history", "convs", "search")],
    ("mute", {"until": -1}),
    ("settings", {"presence": 1}),
]


def decode(op: str, fields: dict[str, Any]) -> rq.Request:
    return decode_request(encode_json({"op": op, **fields}), 1000, 1000)


def test_every_request_has_a_right_form_here() -> None:
    assert set(RIGHT) == {kind.__struct_config__.tag for kind in get_args(rq.AnyRequest)}


@pytest.mark.parametrize("op", RIGHT)
def test_what_is_right_is_accepted(op: str) -> None:
    assert decode(op, RIGHT[op]).__struct_config__.tag == op


@pytest.mark.parametrize(("op", "wrong"), WRONG)
def test_a_wrong_field_is_named(op: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as refusal:
        decode(op, RIGHT[op] | wrong)
    assert refusal.value.code == "bad_field"
    assert refusal.value.message.startswith(next(iter(wrong)))


@pytest.mark.parametrize(("op", "field"), [(op, field) for op, fields in RIGHT.items() for field in fields])
def test_a_missing_field_is_named(op: str, field: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        decode(op, {name: value for name, value in RIGHT[op].items() if name != field})
    assert (refusal.value.code, refusal.value.message) == ("bad_field", f"{field}: missing")


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("send", {"mentions": ["*", "a"]}),
        ("send", {"to": "#g", "ttl": 1, "key": "k", "n": 1, "reply_to": 1, "push": {}}),
        ("search", {"conv": "a:b", "before": 5}),
        ("convs", {"after": "#g"}),
        ("group.create", {"group": "#g", "members": ["a"]}),
        ("react", {"emoji": "é" * 16}),
    ],
)
def test_rarer_fields_that_are_right(op: str, fields: dict[str, Any]) -> None:
    request = decode(op, RIGHT[op] | fields)
    for name, value in fields.items():
        assert getattr(request, name) == value


def test_the_tree_of_errors_has_a_code_and_a_sentence() -> None:
    refusal = Refusal("rate_limited", "later", retry=True, retry_after=2.0)
    config = ConfigError(["one", "two"])
    assert (refusal.code, refusal.message, refusal.retry_after) == ("rate_limited", "later", 2.0)
    assert (StoreError("disk").code, config.mistakes, config.message) == ("store", ["one", "two"], "one\ntwo")
    assert all(isinstance(error, MqttImError) for error in (refusal, config, StoreError("x")))
