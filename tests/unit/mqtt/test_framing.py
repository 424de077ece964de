"""Where packets end, whatever the pieces, and what is wrong with those that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.mqtt.encode import publish_head
from mqtt_im.mqtt.framing import FIRST_BYTES, body_and_end, remaining_length
from mqtt_im.mqtt.reasons import Malformed
from tests.support import packets

LIMIT = 268_435_460


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_remaining_lengths_of_the_standards_table(length: int, encoded: str) -> None:
    assert remaining_length(length).hex() == encoded
    header = b"\x30" + bytes.fromhex(encoded)
    assert body_and_end(header, 0, LIMIT) == (len(header), len(header) + length)
    for cut in range(1, len(header)):
        assert body_and_end(header[:cut], 0, LIMIT) == (0, cut + 1)


@given(st.integers(0, 268_435_455))
def test_a_length_is_read_as_it_was_written(length: int) -> None:
    header = b"xx\x30" + remaining_length(length)
    assert body_and_end(header, 2, LIMIT) == (len(header), len(header) + length)


@pytest.mark.parametrize("first", sorted(set(range(256)) - FIRST_BYTES))
def test_first_bytes_that_no_client_may_send(first: int) -> None:
    with pytest.raises(Malformed) as wrong:
        body_and_end(bytes((first,)), 0, LIMIT)
    assert wrong.value.reason in ("publish_flags", "reserved_type", "server_packet", "header_flags", "auth_packet")


def test_a_length_of_five_bytes_is_known_by_its_fourth() -> None:
    with pytest.raises(Malformed, match="remaining_length"):
        body_and_end(b"\x30\x80\x80\x80\x80", 0, LIMIT)


@pytest.mark.parametrize("length", [126, 127, 128, 16_383, 16_384, 300_000])
def test_the_limit_is_known_from_the_header(length: int) -> None:
    header = b"\x30" + remaining_length(length)
    size = len(header) + length
    assert body_and_end(header, 0, size) == (len(header), size)
    with pytest.raises(Malformed, match="packet_too_large"):
        body_and_end(header, 0, size - 1)


@given(st.text(min_size=1, max_size=40), st.binary(max_size=20_000))
def test_a_publish_head_is_what_the_standard_says(topic: str, payload: bytes) -> None:
    encoded = topic.encode()
    head = publish_head(0x30, len(encoded), len(payload))
    assert head + encoded + payload == packets.publish(topic, payload, qos=0)
