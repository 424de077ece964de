"""What the client library leans on in paho-mqtt beyond what that promises; see docs/dependencies.md."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import paho.mqtt.client as paho
import pytest

from mqtt_im.client.network import link as link_module
from mqtt_im.client.network.link import Accepted, Link, _Paho


class FakeStream:
    """A stream that keeps what is sent; anything else that paho asked of it would be an `AttributeError`."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.inbound = bytearray()
        self.on_bytes: Any = None
        self.on_end: Any = None
        self.allowed = 0

    def recv(self, size: int) -> bytes:
        size = min(size, self.allowed)
        if not self.inbound or not size:
            raise BlockingIOError
        data = bytes(self.inbound[:size])
        del self.inbound[:size]
        self.allowed -= len(data)
        return data

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def setblocking(self, flag: bool) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pending(self) -> int:
        return len(self.inbound)

    def come(self, data: bytes) -> None:
        self.inbound += data
        self.on_bytes(len(data))


@pytest.fixture(autouse=True)
def in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, what comes is taken in at once; there is no loop here that would come back to it."""
    monkeypatch.setattr(link_module, "_SLICE_S", 60.0)


def linked(version: Any) -> tuple[Link, FakeStream]:
    stream = FakeStream()
    link = Link(stream, version, "phone", "alice", "secret", 60)  # type: ignore[arg-type]
    link.start()
    return link, stream


def test_the_overridden_methods_are_there() -> None:
    assert list(inspect.signature(paho.Client._create_socket).parameters) == ["self"]
    assert list(inspect.signature(paho.Client._send_pingreq).parameters) == ["self"]
    assert list(inspect.signature(paho.Client._handle_pingresp).parameters) == ["self"]
    assert issubclass(_Paho, paho.Client)


def test_connect_leaves_on_the_stream_and_connack_is_told() -> None:
    link, stream = linked(3)
    found: list[Accepted] = []
    link.on_accepted = found.append
    assert stream.sent[0] == 0x10
    assert b"MQTT\x04" in stream.sent
    assert b"phone" in stream.sent
    stream.come(b"\x20\x02\x01\x00")
    assert (found[0].code, found[0].session_present) == (0, True)


@pytest.mark.parametrize("connack", [b"\x20\x03\x00\x84\x00", b"\x20\x02\x00\x01"])
def test_a_version_that_the_server_does_not_speak_has_one_code(connack: bytes) -> None:
    link, stream = linked(5)
    found: list[Accepted] = []
    link.on_accepted = found.append
    stream.come(connack)
    assert found[0].code == 0x84


def test_what_is_sent_from_a_callback_leaves() -> None:
    link, stream = linked(3)
    link.on_accepted = lambda _accepted: (link.publish(7, "up", b"{}", 1), None)[1]
    acknowledged: list[tuple[int, int, str]] = []
    link.on_puback = lambda *found: acknowledged.append(found)
    stream.sent.clear()
    stream.come(b"\x20\x02\x00\x00")
    assert stream.sent == b"\x32\x08\x00\x02up\x00\x01{}"
    stream.come(b"\x40\x02\x00\x01")
    assert acknowledged == [(7, 0, "")]


def test_nothing_is_acknowledged_unasked() -> None:
    link, stream = linked(3)
    got: list[tuple[str, bytes, int]] = []
    link.on_publish = lambda *found: got.append(found)
    stream.come(b"\x20\x02\x00\x00")
    stream.sent.clear()
    stream.come(b"\x32\x08\x00\x02dn\x00\x09{}")
    assert got == [("dn", b"{}", 9)]
    assert stream.sent == b""
    link.acknowledge(9)
    assert stream.sent == b"\x40\x02\x00\x09"


def test_ping_and_its_answer() -> None:
    link, stream = linked(3)
    pongs: list[int] = []
    link.on_pong = lambda: pongs.append(1)
    stream.come(b"\x20\x02\x00\x00")
    stream.sent.clear()
    link.ping()
    assert stream.sent == b"\xc0\x00"
    stream.come(b"\xd0\x00")
    assert pongs == [1]


def test_what_comes_is_taken_in_in_slices_and_all_of_it_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_SLICE_S", -1.0)
    monkeypatch.setattr(link_module, "_PIECE", 6)
    packets = b"".join(b"\x30\x04\x00\x01t%d" % number for number in range(10))

    async def main() -> None:
        link, stream = linked(3)
        got: list[bytes] = []
        link.on_publish = lambda _topic, payload, _id: got.append(payload)
        stream.come(b"\x20\x02\x00\x00" + packets)
        assert len(got) <= 1
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(got) == 10
        stream.come(packets)
        assert len(got) < 20
        stream.on_end(None)
        assert len(got) == 20

    asyncio.run(main())


def test_mqtt_5_codes_aliases_and_reasons() -> None:
    link, stream = linked(5)
    accepted: list[Accepted] = []
    acknowledged: list[tuple[int, int, str]] = []
    got: list[tuple[str, bytes, int]] = []
    lost: list[tuple[str, int]] = []
    link.on_accepted = accepted.append
    link.on_puback = lambda *found: acknowledged.append(found)
    link.on_publish = lambda *found: got.append(found)
    link.on_lost = lambda *found: lost.append(found)
    stream.come(b"\x20\x0e\x00\x00\x0b\x21\x00\x40\x22\x00\x04\x27\x00\x01\x00\x00")
    assert (accepted[0].code, accepted[0].receive_maximum, accepted[0].maximum_packet) == (0, 64, 65_536)
    stream.sent.clear()
    link.publish(1, "up", b"a", 1)
    link.publish(2, "up", b"b", 1)
    assert stream.sent == b"\x32\x0b\x00\x02up\x00\x01\x03\x23\x00\x01a" + b"\x32\x09\x00\x00\x00\x02\x03\x23\x00\x01b"
    stream.come(b"\x40\x0b\x00\x01\x83\x07\x1f\x00\x04no: ")
    assert acknowledged == [(1, 0x83, "no: ")]
    stream.come(b"\x32\x0b\x00\x02dn\x00\x05\x03\x23\x00\x01x" + b"\x32\x09\x00\x00\x00\x06\x03\x23\x00\x01y")
    assert got == [("dn", b"x", 5), ("dn", b"y", 6)]
    stream.come(b"\xe0\x02\x8e\x00")
    assert [code for _, code in lost] == [0x8E]


@pytest.mark.parametrize(
    "nonsense", [b"\x00\x00", b"\xff\xff\xff\xff\xff\xff", b"\x20\x01\x00", b"\x32\x02\x00\xff", b"\x30\x03\x00\x01\xff"]
)
def test_nonsense_ends_the_connection(nonsense: bytes) -> None:
    link, stream = linked(3)
    lost: list[tuple[str, int]] = []
    link.on_lost = lambda *found: lost.append(found)
    stream.come(nonsense)
    assert len(lost) == 1
