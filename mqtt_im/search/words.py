"""Words: what the search index holds of a body, and what a query asks for. Pure.

Letters, digits and marks make words, everything else separates them. Case, accents and the width of letters make no difference,
nor do strokes through letters, the vowel points of Hebrew and Arabic, which one may write or not, and what nobody sees inside a
word: format characters, variation selectors, fillers.
Chinese, Japanese, Korean and Thai do not separate words: there each character stands for itself, and what a query writes
without a gap is a phrase, to be found without a gap. So are emoji.

The index (`tokenize = ascii`) takes every character beyond ASCII for a part of a word, so everything about words is decided
here. Of ASCII it separates words at all but letters and digits, and folds case, as is done here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from mqtt_im.protocol import numbers

VERSION: Final = 4
"""Of these rules; an index made by others is made anew."""

MARK: Final = "\ue000"
"""Begins what the index says about a message beside its words; private to the index, no body's word has it."""
_GAP: Final = "\ue001"
"""Stands in the index between two single characters that something separates, so that no phrase spans it."""

_MAX_KNOWN: Final = 20_000
_SINGLE: Final = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u2190-\u2bff"  # symbols
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u30ff\u3100-\u318f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff"  # Hangul, compatibility ideographs
    "\U0001b000-\U0001b16f\U0001f000-\U0001faff\U00020000-\U0003ffff]"
)
_around_single: Final = re.compile(f"({_SINGLE})")
_find_gap: Final = re.compile(f"(?<={_SINGLE}) +(?={_SINGLE})")
_find_accents: Final = re.compile(
    "[\u0300-\u036f"
    "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef\u115f\u1160\u17b4\u17b5"  # variation selectors, fillers
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew points and accents
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]+"  # Arabic ones, tatweel
)
_MAX_MARKS: Final = 30
"""On one letter; no language has so many (UAX #15, Stream-Safe Text Format). To order a run takes the square of its length."""
_find_many: Final = re.compile(rf"(?:[^\w\s\0-\u02ff]|[\uff9e\uff9f]){{{_MAX_MARKS + 1},}}")
"""Where there may be more of them."""
_ALSO_MARKS: Final = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
"""What is no mark, and becomes some when it is taken apart."""
_MAX_GROWTH: Final = 3
"""How many letters one may become when it is taken apart; ligatures of whole words may be more, as many as make …"""
_MAX_LIGATURES: Final = 1_000
"""… so many letters together."""
_ZERO_WIDTH_SPACE: Final = 0x200B
_STROKES: Final = {"ı": "i", "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ŧ": "t"}
"""What Unicode does not take apart, with what it is a form of. An `I` may be the capital of `ı`."""


class _Letters(dict[int, str]):
    """What becomes of each character: itself as a part of a word, or a gap."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" and code != _ZERO_WIDTH_SPACE:
            found = ""  # a joiner, a direction, a soft hyphen: no part of the word, and no end of it
        else:
            found = character if category[0] in "LNM" or category == "So" else " "
        if len(self) < _MAX_KNOWN:
            self[code] = found
        return found


_letters: Final = _Letters({ord(letter): plain for letter, plain in _STROKES.items()})


def text_of(body: bytes) -> str:
    """What is to be indexed of a body (JSON text): the string that it is, or all strings in it, keys and binary left out."""
    try:
        value = numbers.decode(body)
        text = value if isinstance(value, str) else "\n".join(_strings(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # it was kept as it came, and can't be read
    if text.isascii():
        return text.replace("\0", " ")
    return " ".join(_apart(_find_gap.sub(f" {_GAP} ", _plain(text))))


def phrases_of(query: str) -> list[str]:
    """The words of a query, each once; the characters of a phrase are separated by a space."""
    return list(dict.fromkeys([" ".join(_apart(word)) for word in _plain(query).split()]))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict) and not (len(value) == 1 and "$bin" in value):
        for item in value.values():
            yield from _strings(item)


def _plain(text: str) -> str:
    """The words of a text in the form in which they are compared, with spaces between them."""
    plain = unicodedata.normalize("NFKD", _with_few_marks(text))[: _MAX_GROWTH * len(text) + _MAX_LIGATURES]
    folded = unicodedata.normalize("NFKD", plain.casefold())
    return unicodedata.normalize("NFC", _with_few_marks(_find_accents.sub("", folded))).translate(_letters)


def _with_few_marks(text: str) -> str:
    """Without the marks that are too many for one letter."""
    return _find_many.sub(_with_few, text)


def _with_few(found: re.Match[str]) -> str:
    kept: list[str] = []
    marks = 0
    for character in found[0]:
        marks = marks + 1 if unicodedata.combining(character) or character in _ALSO_MARKS else 0
        if marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _apart(words: str) -> list[str]:
    """The words of a plain text, each character of an unseparated script as one of its own."""
    return " ".join(_around_single.split(words)).split()
