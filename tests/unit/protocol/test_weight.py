"""Bodies of more lists and maps than anybody can need."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mqtt_im.protocol.codec import decode_request
from mqtt_im.protocol.faults import Unreadable
from mqtt_im.protocol.weight import MAX_PARTS, too_many_parts


def payloads(body: Any) -> list[bytes]:
    request = {"op": "send", "id": "x", "to": "bob", "body": body}
    return [msgspec.json.encode(request), msgspec.msgpack.encode(request)]


@pytest.mark.parametrize("body", [[[]] * MAX_PARTS, [{}] * MAX_PARTS, [[[]] * 10] * 1_000, {"a": [[]] * MAX_PARTS}])
def test_too_many_lists_and_maps_are_refused_by_name(body: Any) -> None:
    for payload in payloads(body):
        with pytest.raises(Unreadable, match=f"more than {MAX_PARTS} lists, maps and binaries") as refused:
            decode_request(payload, 65_536, 262_144)
        assert (refused.value.code, refused.value.id) == ("bad_payload", "x")


def test_binaries_count_as_what_they_become() -> None:
    with pytest.raises(Unreadable, match="lists, maps and binaries"):
        decode_request(payloads([b""] * 20_000)[1], 65_536, 262_144)


@pytest.mark.parametrize(
    "body", [[[]] * (MAX_PARTS - 1), [1] * 20_000, [None] * 12_000, "[" * 60_000, ["[[[[" * 10_000, 1], {"a": "{" * 60_000}]
)
def test_what_is_within_the_bound_or_only_looks_like_lists_passes(body: Any) -> None:
    for payload in payloads(body):
        decode_request(payload, 65_536, 262_144)


def test_the_count_is_exact() -> None:
    assert not too_many_parts([[1, "a", None]] * (MAX_PARTS - 1))
    assert too_many_parts([[1, "a", None]] * MAX_PARTS)
    assert too_many_parts({"a": {"b": [{}] * (MAX_PARTS - 2)}})
    assert not too_many_parts({"a": {"b": [{}] * (MAX_PARTS - 3)}})
