"""Every malformed packet closes its connection at once, is counted by what was wrong, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import packets
from tests.support.packets import packet, text
from tests.unit.transport.harness import Server, on_loop

UP = text("im/v1/alice/phone/up")

MALFORMED = {
    "publish_flags": [
        b"\x36" + packet(3, UP + b"\0\1x")[1:],
        b"\x3e" + packet(3, text("a") + b"\0\1x")[1:],
        b"\x38" + packet(3, text("a"))[1:],
        b"\x39" + packet(3, text("a"))[1:],
    ],
    "packet_id_zero": [
        packet(3, UP + b"\0\0x", 2),
        packet(3, UP + b"\0\0x", 4),
        packet(3, text("a") + b"\0\0x", 2),
        packet(4, b"\0\0"),
        packet(5, b"\0\0"),
        packet(6, b"\0\0", 2),
        packet(7, b"\0\0"),
        packet(8, b"\0\0" + text("a") + b"\0", 2),
        packet(10, b"\0\0" + text("a"), 2),
    ],
    "too_short": [
        packet(3, text("a"), 2),
        packet(3, text("a") + b"\1", 2),
        packet(3, b"\0\5a"),
        packet(3, b""),
        packet(5, b"\1"),
        packet(8, b"\0\1" + text("a"), 2),
        packet(8, b"\0\1\0\5a", 2),
        packet(10, b"\0\1\0", 2),
    ],
    "too_long": [packet(5, b"\0\1\0"), packet(6, b"\0\1\0", 2), packet(7, b"\0\1\0")],
    "puback_length": [packet(4, b"\0"), packet(4, b"\0\1\0"), packet(4)],
    "pingreq_length": [packet(12, b"x")],
    "disconnect_length": [packet(14, b"x")],
    "utf8": [packet(3, text(b"\xff")), packet(3, text(b"\xed\xa0\x80")), packet(8, b"\0\1" + text(b"\xc0\x80") + b"\0", 2)],
    "nul": [packet(3, text("a\0b")), packet(8, b"\0\1" + text("\0") + b"\0", 2)],
    "topic": [packet(3, text("")), packet(3, text("a/+")), packet(3, text("#")), packet(3, text("a#"))],
    "filter": [
        *(packet(8, b"\0\1" + text(wrong) + b"\0", 2) for wrong in ("", "a#", "a/#/b", "+a", "a/b+", "##")),
        packet(10, b"\0\1" + text("#/a"), 2),
    ],
    "subscribe_qos": [packet(8, b"\0\1" + text("a") + b"\3", 2), packet(8, b"\0\1" + text("a") + b"\4", 2)],
    "no_filters": [packet(8, b"\0\1", 2), packet(10, b"\0\1", 2)],
    "header_flags": [
        *(packet(kind, b"\0\1", 1) for kind in (4, 5, 7)),
        packet(6, b"\0\1"),
        packet(8, b"\0\1" + text("a") + b"\0"),
        packet(10, b"\0\1" + text("a")),
        packet(12, b"", 1),
        packet(14, b"", 2),
    ],
    "reserved_type": [packet(0), packet(15, b"x", 1)],
    "auth_packet": [packet(15)],
    "server_packet": [packet(2, b"\0\0"), packet(9, b"\0\1\0"), packet(11, b"\0\1"), packet(13)],
    "second_connect": [packets.connect("phone", username="alice")],
    "remaining_length": [b"\x30\xff\xff\xff\xff\x01"],
    "packet_too_large": [b"\x30\xff\xff\x7f", b"\x32\x81\x80\x10"],
}


@pytest.mark.parametrize("reason", MALFORMED)
@on_loop
async def test_it_closes_the_connection_at_once(tmp_path: Path, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mqtt_im")
    async with Server(tmp_path, plain_topics=("#",)) as server:
        for number, data in enumerate(MALFORMED[reason], start=1):
            client = await server.connect()
            client.send(data)
            assert await client.gone() == [], data
            assert server.counts[f"malformed_packets:{reason}"] == number, data
        assert not server.handler.uplinks
        assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("reason", MALFORMED)
@on_loop
async def test_it_does_so_behind_packets_that_wait(tmp_path: Path, reason: str) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect(clean=False)
        client.send(packets.subscribe(1, ("a", 1)) + MALFORMED[reason][0])
        await client.gone()
        assert server.counts[f"malformed_packets:{reason}"] == 1


@on_loop
async def test_the_limit_counts_whole_packets(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_packet_bytes": 128}) as server:
        client = await server.connect()
        head = len(packets.publish("im/v1/alice/phone/up", b"", packet_id=1))
        client.send(packets.publish("im/v1/alice/phone/up", b"x" * (128 - head), packet_id=1))
        await client.expect(packets.PUBACK, 1)
        client.send(packets.publish("im/v1/alice/phone/up", b"x" * (129 - head), packet_id=2))
        assert await client.gone() == []
        assert server.counts["malformed_packets:packet_too_large"] == 1


@on_loop
async def test_a_packet_that_is_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        client.send(b"\x32\x80\x80\x80\x40")
        assert await client.gone() == []


@on_loop
async def test_unreleased_qos_2_publishes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.receiving._MAX_UNRELEASED", 3)
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect()
        for packet_id in range(1, 5):
            client.send(packets.publish("a", b"", qos=2, packet_id=packet_id))
        assert [answer.packet_id for answer in await client.gone()] == [1, 2, 3]
        assert server.counts["malformed_packets:too_many_unreleased"] == 1


@on_loop
async def test_what_was_sent_before_it_is_handled_first(tmp_path: Path) -> None:
    for wrong in (b"\x00\x00", packet(4, b"\0"), b"\x30\xff\xff\x7f"):
        async with Server(tmp_path) as server:
            client = await server.connect()
            # UNSUBSCRIBE is handled by a task, which the packets behind it wait for.
            client.send(packets.unsubscribe(1, "a") + packets.publish("im/v1/alice/phone/up", b"{}", packet_id=2) + wrong)
            assert [(answer.kind, answer.packet_id) for answer in await client.gone()] == [
                (packets.UNSUBACK, 1),
                (packets.PUBACK, 2),
            ]
            assert server.counts["closes:malformed"] == 1
