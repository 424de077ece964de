"""What is a word, in a body and in a query."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from mqtt_im.search.words import _with_few_marks, phrases_of, text_of


def indexed(body: Any) -> list[str]:
    return text_of(json.dumps(body, ensure_ascii=False).encode()).split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Grüße aus KÖLN", ["grusse", "aus", "koln"]),
        ("naïve café, e\u0301te\u0301", ["naive", "cafe", "ete"]),
        ("ΣΊΣΥΦΟΣ Сегодня ЁЛКА İstanbul", ["σισυφοσ", "сегодня", "елка", "istanbul"]),
        ("天气", ["天", "气"]),
        ("iPhone手机", ["iphone", "手", "机"]),
        ("ｶﾞﾗｽ ＡＢＣ", ["ガ", "ラ", "ス", "abc"]),
        ("안녕", ["안", "녕"]),
        ("สวัส", ["ส", "ว", "ั", "ส"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("👍🏽 ok ❤\ufe0f", ["👍", "ok", "❤"]),
        ("שָׁלוֹם", ["שלום"]),
        ("السَّلَامُ عليـــكم", ["السلام", "عليكم"]),
        ("ક્‍ષ नि\u200dर्भर", ["ક્ષ", "निर्भर"]),
        ("co\u00adoperate a\u200eb a\u200bc", ["cooperate", "ab", "a", "c"]),
        ("ᠮᠣ\u180bᠩ 葛\U000e0100飾 한\u3164글 a\ufe0eb", ["ᠮᠣᠩ", "葛", "飾", "한", "글", "ab"]),
        ("Łódź ØRESUND ışık IŞIK Đà", ["lodz", "oresund", "isik", "isik", "da"]),
        ("\U00030000𠮷", ["\U00030000", "𠮷"]),
        ("„quoted“ – dash…end", ["quoted", "dash", "end"]),
        ("a\ue000b\ue001c", ["a", "b", "c"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [word for word in indexed(text) if word != "\ue001"] == words
    assert " ".join(phrases_of(text)).split() == list(dict.fromkeys(words)) or len(words) != len(set(words))


def test_plain_english_is_left_to_the_index() -> None:
    assert text_of(b'"It\'s FINE, foo_bar\\u0000!"') == "It's FINE, foo_bar !"


def test_a_query_is_words_each_once_and_unseparated_scripts_are_phrases() -> None:
    assert phrases_of('foo_bar Foo "x" AND x* 北京 天气!') == ["foo", "bar", "x", "and", "北 京", "天 气"]
    assert phrases_of("iPhone手机") == ["iphone 手 机"]
    assert phrases_of(" !?\u0000\ue000'\"") == []


def test_what_stands_between_two_characters_ends_a_phrase() -> None:
    assert indexed("今天。气温") == ["今", "天", "\ue001", "气", "温"]
    assert indexed(["天", "气"]) == ["天", "\ue001", "气"]
    assert indexed("天x气") == ["天", "x", "气"]


def test_strings_in_maps_and_lists_are_found_but_neither_keys_nor_binary() -> None:
    body = {"title": "one two", "deep": [{"text": "three", "n": 4}, ["five", None, True]], "file": {"$bin": "c2l4"}}
    assert indexed(body) == ["one", "two", "three", "five"]
    assert indexed({"$bin": "c2l4"}) == []
    assert indexed({"$bin": "seven", "note": "eight"}) == ["seven", "eight"]


@pytest.mark.parametrize("body", [b"12", b"null", b'"\\ud800"', b'"\xff"', b"[" * 50_000, b""])
def test_what_has_no_words_or_can_t_be_read_has_none(body: bytes) -> None:
    assert text_of(body) == ""


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u3099\u302a", "\u3099\uff9e\u302a", "\u0f73\u0f72", "\u3099\u302a\ufe0f"])
def test_a_letter_has_as_many_marks_as_a_language_may_give_it(marks: str) -> None:
    """Unicode's order of marks is made in the square of their number."""
    assert all(len(word) <= 100 for word in indexed("か" + marks * 10_000 + " ende"))
    assert indexed("か" + marks * 10_000 + " ende")[-1] == "ende"


def test_ligatures_of_whole_words_are_found_and_a_text_of_them_is_cut_short() -> None:
    assert indexed("\ufdfa") == phrases_of("صلى الله عليه وسلم")
    assert sum(map(len, indexed("\ufdfa" * 20_000))) < 61_001


def test_every_mark_is_counted() -> None:
    """Also those that are no marks until they are taken apart."""
    marks = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and _is_mark(chr(code))]
    assert len(marks) > 900
    assert [mark for mark in marks if len(_with_few_marks(mark * 40)) > 30] == []


def _is_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0
