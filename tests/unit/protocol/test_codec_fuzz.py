"""A few seconds of `python -m tests.fuzz payloads`, the same each time; and what longer runs have found."""

from __future__ import annotations

import msgspec
import pytest

from mqtt_im.protocol.codec import json_to_msgpack
from tests.fuzz import payloads


def test_payloads_are_refused_or_deliverable() -> None:
    assert payloads.run(seed=20, seconds=0, cases=40_000)


@pytest.mark.parametrize("text", ["\ufeff", "\u00e9===", "A", "!"])
def test_bin_that_is_no_base64_stays_a_map(text: str) -> None:
    """Text that was not even ASCII stopped the stream of a MessagePack device."""
    body = msgspec.json.encode({"$bin": text})
    assert payloads.check(b'{"op":"send","to":"bob","body":%s}' % body) == "accepted"
    assert msgspec.msgpack.decode(json_to_msgpack(body)) == {"$bin": text}
