"""What is remembered of accounts and tokens: bounded by its bytes, and void with the change that makes it so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mqtt_im.accounts import known
from mqtt_im.accounts.known import Known
from mqtt_im.accounts.models import CREATED, ERASED, PASSWORD, REMOVED, REVOKED, TOKEN, Change, Token
from mqtt_im.shares import USUAL_MB, Bounds


def token(number: int, user: str = "ann", name: str = "") -> Token:
    return Token(f"t{number}", user, name, 0, None, session=True)


def remembers(some: Known, *numbers: int) -> list[bool]:
    return [some.token(f"t{number}") is not None for number in numbers]


def test_tokens_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_TOKENS_BYTES", 4 * (known._ENTRY_BYTES + known._OWNER_BYTES))
    some = Known(Bounds())
    for number in range(9):
        some.remember_token(b"", token(number))
    assert remembers(some, 4, 5, 6, 7, 8) == [False, False, True, True, True]
    some.remember_token(b"", token(9, name="n" * 3 * (known._ENTRY_BYTES + known._OWNER_BYTES)))
    assert remembers(some, 7, 8, 9) == [False, False, True], "what a label is counts too"
    assert some._of == {"ann": ["t9"]}, "nothing is left of those that have left"


def test_with_little_memory_less_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_HASHES_BYTES", 8 * known._ENTRY_BYTES)
    counts = []
    for memory_mb in (USUAL_MB, 100 + (USUAL_MB - 100) // 2):
        some = Known(Bounds(memory_mb))
        for number in range(20):
            some.take_in(number + 1, f"u{number}", CREATED, "")
            some.remember_hash(f"u{number}", number + 1, "")
        counts.append(sum(some.hash_of(f"u{number}") is not None for number in range(20)))
    assert counts == [7, 3]


def test_a_change_voids_what_it_is_about() -> None:
    some = Known(Bounds())
    some.take_in(1, "ann", CREATED, "")
    some.take_in(2, "bob", CREATED, "")
    some.remember_hash("ann", 1, "hash")
    some.remember_token(b"", token(1))
    some.remember_token(b"", token(2))
    some.remember_token(b"", token(3, "bob"))
    some.take_in(3, "ann", TOKEN, "t4")
    assert remembers(some, 1, 2, 3) == [True, True, True] and some.hash_of("ann") == "hash"
    some.take_in(4, "ann", REVOKED, "t1")
    assert remembers(some, 1, 2, 3) == [False, True, True]
    some.take_in(5, "ann", PASSWORD, "")
    assert remembers(some, 1, 2, 3) == [False, False, True] and some.hash_of("ann") is None
    some.take_in(5, "bob", REMOVED, "")
    assert "bob" in some.versions, "a row counts once"
    some.take_in(6, "bob", REMOVED, "")
    assert some.versions == {"ann": 5} and remembers(some, 3) == [False]
    some.take_in(7, "bob", ERASED, "")
    assert some.versions == {"ann": 5}
    assert [change.what for change in some.take_changes()] == [CREATED, CREATED, TOKEN, REVOKED, PASSWORD, REMOVED, ERASED]
    assert some.take_changes() == []


def test_what_is_in_no_file_ends_like_any_other() -> None:
    some = Known(Bounds())
    some.let_pass(b"", token(1))
    some.let_pass(b"", token(2))
    some.let_pass(b"", token(3, "bob"))
    some.remember_token(b"", token(4))
    assert sorted(some.passing_of("ann")) == ["t1", "t2"]
    some.end_passing("t1")
    assert some.passing_of("ann") == ["t2"] and remembers(some, 1, 2) == [False, True]
    assert some.take_changes() == [Change("ann", REVOKED, "t1")]
    some.take_in(1, "ann", PASSWORD, "")
    assert some.passing_of("ann") == []


def test_a_change_looks_at_the_tokens_of_whom_it_is_about_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Known(Bounds())
    for number in range(50):
        some.let_pass(b"", token(number, f"u{number % 10}"))
    looked: list[str] = []
    monkeypatch.setattr(some, "_tokens", _Watched(some._tokens, looked))
    some.take_in(1, "u3", PASSWORD, "")
    assert sorted(looked) == ["t13", "t23", "t3", "t33", "t43"]
    assert some.passing_of("u3") == [] and len(some.passing_of("u4")) == 5


class _Watched:
    """Tokens, of which it is noted which ones are looked at."""

    def __init__(self, tokens: Any, looked: list[str]) -> None:
        self._tokens = tokens
        self._looked = looked

    def items(self) -> Iterator[Any]:
        for item in self._tokens.items():
            self._looked.append(item[0])
            yield item

    def drop(self, key: str) -> None:
        self._looked.append(key)
        self._tokens.drop(key)
