"""JSON that may be anything is read at the cost of its length: no number in it takes msgspec's slow way."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mqtt_im
from mqtt_im.protocol import codec, numbers, requests

_UNTYPED = re.compile(r"msgspec\.json\.(Decoder\((?!.*float_hook)(\)|\w+\))|decode\([^=]*\)$)", re.MULTILINE)
_OURS = {
    "account_changes.py",
    "bridge/logins/http.py",  # what the operator's own service answers
    "bridge/logins/jwts.py",  # the operator's own keys
    "client/outgoing.py",  # what this client has written itself
    "hooks/payloads.py",  # what presence shows
    "hooks/webpush.py",  # a text
    "protocol/faults.py",  # fields that stay as they are
}
"""Where what is read was not written by a client, or has no numbers."""


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_what_they_are(value: float) -> None:
    text = msgspec.json.encode(value)
    assert numbers.decode(text) == value == msgspec.json.decode(text)


@pytest.mark.parametrize("text", [b"1e309", b"-1e309", b"[1e999]", b"1" * 400 + b".0"])
def test_one_that_is_too_large_is_no_json(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        numbers.decode(text)


def test_whatever_clients_write_is_read_so() -> None:
    """A body of `1e308` took 130 ms, and four times that where a field beside it was wrong."""
    assert codec._json.float_hook is codec._named.float_hook is codec._decoder_of(requests.Send).float_hook is numbers.number
    root = Path(mqtt_im.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if _UNTYPED.search(path.read_text())}
    assert found <= _OURS
