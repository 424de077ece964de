"""Nobody's text does anything to the terminal."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.chat.text import escaped, shown, system


@given(st.text())
def test_nothing_that_controls_is_left(text: str) -> None:
    for char in escaped(text):
        assert char in "\u200c\u200d" or unicodedata.category(char)[0] != "C"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("plain 漢字 👩‍👩‍👧", "plain 漢字 👩‍👩‍👧"),
        ("\x1b[31mred\x07", "\\e[31mred\\x07"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202eevil", "\\u202eevil"),
        ({"a": "\x1b"}, '{"a": "\\u001b"}'),
        (b"abc", "<3 bytes>"),
        (None, "null"),
    ],
)
def test_a_body_is_one_line(body: Any, expected: str) -> None:
    assert shown(body) == expected


def test_lines_may_stay() -> None:
    assert shown("a\nb\r", keep="\n") == "a\nb\\r"


def test_what_happened_to_a_group() -> None:
    assert system({"event": "group.create", "members": ["a", "b"], "name": "x\x1b"}, "a") == "a made the group “x\\e” with a, b"
    assert system({"event": "group.role", "user": "b", "role": "admin"}, "a") == "a made b admin"
    assert system({"event": "new"}, "a") == "a: new"
