"""Names of users, devices, groups and conversations (PROTOCOL §2, §3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.protocol.names import direct, is_device, is_group, is_user, members_of_direct

names = st.from_regex(r"[A-Za-z0-9_.\-]{1,64}", fullmatch=True).filter(lambda name: name not in (".", ".."))


@pytest.mark.parametrize("name", ["a", "A-Z_0.9", "x" * 64, "-", "...", ".a", "0"])
def test_names_that_are_right(name: str) -> None:
    assert is_user(name) and is_device(name) and is_group("#" + name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "a:b", "a+", "é", "a\n", "\0", "#a", "$SYS", ".", ".."])
def test_names_that_are_wrong(name: str) -> None:
    assert not is_user(name) and not is_device(name) and not is_group("#" + name)


@pytest.mark.parametrize("name", ["a", "##a", ""])
def test_a_group_begins_with_one_hash(name: str) -> None:
    assert not is_group(name)


@given(names, names)
def test_a_direct_conversation_has_one_id_and_tells_its_users(a: str, b: str) -> None:
    conv = direct(a, b)
    assert conv == direct(b, a)
    pair = members_of_direct(conv)
    assert pair is not None
    assert pair == tuple(sorted((a, b)))


@pytest.mark.parametrize("conv", ["b:a", "a", "a:", ":a", "a:b:c", "#g", "", "a b:c", "a:b "])
def test_what_is_no_direct_conversation(conv: str) -> None:
    assert members_of_direct(conv) is None
