"""PROTOCOL.md §3: payloads, their forms, and `body` in each of them."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any

import msgspec
import pytest

from tests.support.im import codec_of, encode
from tests.system.conftest import Clients, Name

CONFIG = {"limits.max_body_bytes": 1000}

BODIES: list[Any] = [
    "", "text", "ünïcödé 🙂 漢字 \u2028", 0, -1, 2**53, 1.5, True, False, None, [], {}, [1, [2, {"a": None}]],
    {"deep": {"deeper": [{"x": "y"}]}, "": "empty key"}, "\"quotes\\ and \n controls \u0000",
]  # fmt: skip


@pytest.mark.parametrize("form", ["json", "msgpack", "json+zip", "msgpack+zip"])
def test_requests_in_every_form(im: Clients, name: Name, form: str) -> None:
    """Told apart by the first byte; answered in JSON, uncompressed, unless hello asked for more."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.request("send", form=form, to=bob, body={"a": [1, "zwei"]}, id="1")
    assert codec_of(client.wait("sent", id="1").packet.payload) == "json"
    got = peer.wait("msg")
    assert got["body"] == {"a": [1, "zwei"]}
    assert codec_of(got.packet.payload) == "json"


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("zipped", [False, True])
def test_what_hello_asks_for_is_what_comes(im: Clients, name: Name, codec: str, zipped: bool) -> None:
    """`zip` allows compression: a long compressible payload uses it, and every payload is readable either way."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    peer.must("hello", codec=codec, zip=zipped)
    text = "compress me " * 60
    client.say(bob, text)
    got = peer.wait("msg", body=text)
    forms = {codec_of(got.packet.payload)}
    assert forms == {codec + ("+zip" if zipped else "")}
    assert codec_of(peer.must("devices").packet.payload).removesuffix("+zip") == codec


def test_the_form_lasts_as_long_as_the_connection(im: Clients, name: Name) -> None:
    """§4: codec, batch, zip and window."""
    alice = name("alice")
    client = im.online(alice, clean=False)
    client.must("hello", codec="msgpack", zip=True, batch=True)
    assert codec_of(client.must("devices").packet.payload).startswith("msgpack")
    client.disconnect()
    client = im.online(alice, clean=False)
    assert codec_of(client.must("devices").packet.payload) == "json"


@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_any_value_is_a_body(im: Clients, name: Name, body: Any) -> None:
    """Opaque to the server: the same in `msg`, in `history`, for JSON and MessagePack devices."""
    alice, bob = name("alice"), name("bob")
    client, json_peer, packed_peer = im.online(alice), im.online(bob, "json"), im.online(bob, "packed")
    packed_peer.must("hello", codec="msgpack")
    client.say(bob, body)
    for peer in (json_peer, packed_peer):
        assert peer.wait("msg")["body"] == body
        assert peer.must("history", conv=client.events[-1]["conv"])["items"][0]["body"] == body


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_binary_crosses_between_the_codecs(im: Clients, name: Name, form: str) -> None:
    """Binary reaches a JSON device as {"$bin": base64}, and that form from a JSON device is binary for a MessagePack one."""
    alice, bob = name("alice"), name("bob")
    client, json_peer, packed_peer = im.online(alice), im.online(bob, "json"), im.online(bob, "packed")
    packed_peer.must("hello", codec="msgpack")
    raw, wrapped = b"\x00\x01\xfe\xff", {"$bin": "AAH+/w=="}
    body = [raw, {"k": raw}] if form == "msgpack" else [wrapped, {"k": wrapped}]
    client.request("send", form=form, to=bob, body=body, id="1")
    assert client.wait("sent", id="1")
    assert json_peer.wait("msg")["body"] == [wrapped, {"k": wrapped}]
    assert packed_peer.wait("msg")["body"] == [raw, {"k": raw}]


def test_unknown_fields_are_ignored(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    client.say(bob, "x", colour="red", nested={"a": 1})
    first = client.must("send", to=bob, body="y", id="k", colour="red")
    again = client.must("send", to=bob, body="y", id="k", colour="blue")
    assert (again["seq"], again["dup"]) == (first["seq"], True)


def test_ts_is_the_servers_clock_at_commit_in_milliseconds(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    before = int(time.time() * 1000)
    sent = client.say(name("bob"), "x", cts=1234)
    after = int(time.time() * 1000)
    assert before - 1 <= sent["ts"] <= after + 1
    assert before - 1 <= client.must("hello")["ts"]


def test_cts_is_kept_and_handed_on_and_orders_nothing(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.say(bob, "first", cts=2_000)
    client.say(bob, "second", cts=1_000)
    assert [(item["body"], item["cts"], item["seq"]) for item in peer.drain()] == [("first", 2_000, 1), ("second", 1_000, 2)]
    page = peer.must("history", conv=client.events[0]["conv"])
    assert [item["cts"] for item in page["items"]] == [2_000, 1_000]


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_the_limit_counts_the_encoded_body_as_received_unpacked(im: Clients, name: Name, form: str) -> None:
    """1,000 bytes here: exactly that is accepted, one more is too_large, also where it travels compressed."""
    client = im.online(name("alice"))
    length = 1000 - (2 if form == "json" else 3)
    encoder = json.dumps if form == "json" else msgspec.msgpack.encode
    assert len(encoder("x" * length)) == 1000
    for suffix in ("", "+zip"):
        client.request("send", form=form + suffix, to="bob", body="x" * length, id=f"fits{suffix}")
        assert client.reply(f"fits{suffix}").op == "sent"
        client.request("send", form=form + suffix, to="bob", body="x" * (length + 1), id=f"over{suffix}")
        answer = client.reply(f"over{suffix}")
        assert (answer.op, answer["code"], answer["retry"]) == ("error", "too_large", False)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"[1,2]", b"\"text\"", b"17", b"null", b"\x93\x01\x02\x03", b"\xc1", b"\x81", b"\x78", b"\x78\x9cgarbage",
        b"\xff" * 20, b"hello", b'{"op": 1}', b"{}", b'{"id": "x"}', encode({"op": "send", "to": "bob"})[:-1],
        b'{"op":"send","to":"bob","body":"\xff"}', b"{" * 10_000, b'{"a":' * 5_000, b"\x81\xa1a" * 5_000, b"\x91" * 5_000,
        zlib.compress(b"not a map"), zlib.compress(zlib.compress(b"{}")),
        zlib.compress(b'{"op":"send","to":"bob","body":"x"}')[:-5],
    ],
    ids=lambda payload: repr(payload[:24]),
)  # fmt: skip
def test_a_payload_that_cannot_be_read_is_an_error_and_acknowledged(im: Clients, name: Name, payload: bytes) -> None:
    """§5: error, retry false; PUBACK; nothing stored; the connection stays."""
    alice = name("alice")
    client = im.online(alice)
    packet_id = client.publish(client.up_topic, payload)
    answer = client.wait("error")
    assert answer["code"] in {"bad_payload", "unknown_op", "bad_field"}
    assert (answer["retry"], bool(answer["message"])) == (False, True)
    client.until(lambda: packet_id in client.pubacks, "PUBACK")
    assert client.drain() == []


def test_a_zip_bomb_is_bounded_before_it_is_unpacked(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    bomb = zlib.compress(b'{"op":"send","to":"bob","body":"' + b"a" * 100_000_000 + b'"}', 9)
    client.publish(client.up_topic, bomb)
    answer = client.wait("error")
    assert answer["code"] in {"too_large", "bad_payload"}
    assert answer["retry"] is False
    client.flush()


def test_the_id_is_echoed_in_errors_where_it_can_be_read(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    requests: dict[str, dict[str, Any]] = {
        "e1": {"op": "no-such-op"},
        "e2": {"op": "send"},
        "e3": {"op": "send", "to": 5, "body": 1},
    }
    for request_id, request in requests.items():
        client.publish(client.up_topic, encode({**request, "id": request_id}))
        assert client.reply(request_id).op == "error"
