"""What is wrong with a payload, in words that tell what to mend, and the request's `id` where it can be read all the same."""

from __future__ import annotations

import re
from functools import cache
from json import JSONDecoder
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from . import numbers
from .errors import Refusal
from .requests import ABSENT, AnyRequest

BOM: Final = b"\xef\xbb\xbf"


class _Glance(msgspec.Struct):
    """What is looked at of a payload that is no request; what else is in it is passed over, which costs next to nothing."""

    op: msgspec.Raw = ABSENT
    id: msgspec.Raw = ABSENT


_glance_json = msgspec.json.Decoder(_Glance)
_glance_msgpack = msgspec.msgpack.Decoder(_Glance)
_any_msgpack = msgspec.msgpack.Decoder()
_lenient = JSONDecoder()
_MAX_LENIENT: Final = 65_536
"""Bytes of a damaged text that is looked through for an id."""
_MAX_ID_BYTES: Final = 64 * 12 + 2
"""Of an id as it is written: two escapes for each character."""
_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*)`")
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_ALONE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""An escape of a surrogate that does not belong to a pair."""


class Unreadable(Refusal):
    """A payload that is no request; `id` is the request's, where it could be read all the same."""

    def __init__(self, refusal: Refusal, request_id: str | None) -> None:
        super().__init__(refusal.code, refusal.message)  # type: ignore[arg-type]
        self.id = request_id


def unreadable(error: Exception, payload: bytes, *, json: bool, known: bool = False) -> Unreadable:
    """Find the words for a payload that is no request, and its id where it has one; `known`: its `op` was said beside it."""
    try:
        found = (_glance_json if json else _glance_msgpack).decode(payload)
    except msgspec.ValidationError as wrong:
        if json or payload[:1] not in _MSGPACK_MAPS:
            return Unreadable(Refusal("bad_payload", "expected one map (a JSON object)"), None)
        return Unreadable(Refusal("bad_payload", f"expected a map whose keys are texts: {wrong}"), None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as deeper:
        return no_map(payload, deeper) if json else Unreadable(_no_msgpack(payload, deeper), None)
    if not isinstance(error, msgspec.ValidationError | Refusal):  # a text that is none, in what is passed over here
        return no_map(payload, error) if json else Unreadable(_no_msgpack(payload, error), None)
    request_id = _id(_short(found.id, json=json))
    if isinstance(error, Refusal):
        return Unreadable(error, request_id)
    if not bytes(found.op) and not known:
        return Unreadable(Refusal("bad_field", "op: missing"), request_id)
    where = _WHERE.match(str(error))
    what, path = (where["what"], where["path"]) if where else (str(error), None)
    if path == "op":
        if known:
            return Unreadable(Refusal("bad_field", "op: another one than the path names"), request_id)
        op = _short(found.op, json=json)
        if op is ...:
            return Unreadable(Refusal("unknown_op", "op: longer than any that is known"), request_id)
        if isinstance(op, str):
            return Unreadable(Refusal("unknown_op", f"op: {op[:64]!r} is not known"), request_id)
        return Unreadable(Refusal("bad_field", "op: expected a string"), request_id)
    missing = _MISSING.match(what)
    if missing:
        return Unreadable(Refusal("bad_field", f"{missing['field']}: missing"), request_id)
    if path in _choices() and what.startswith("Invalid enum value"):
        what = f"expected one of {_choices()[path]}"
    return Unreadable(Refusal("bad_field", f"{path}: {what}" if path else what), request_id)


@cache
def _choices() -> dict[str, str]:
    """The fields that take one of a few words, and which."""
    found = {}
    for kind in get_args(AnyRequest):
        for field in msgspec.structs.fields(kind):
            for part in (field.type, *get_args(field.type)):
                if get_origin(part) is Literal:
                    found[field.name] = ", ".join(get_args(part))
    return found


def no_map(payload: bytes, error: Exception) -> Unreadable:
    """The fault of a payload that is not one JSON map, among them what programs that make JSON by hand do wrong."""
    what = f"not JSON: {error}"
    if payload.startswith(BOM):
        what = "it begins with a byte order mark (EF BB BF); send UTF-8 without one"
    elif payload.endswith(b"\0"):
        what = "a NUL byte stands behind it; send the text without the end that C gives it"
    elif (half := _half_character(payload)) is not None:
        what = f"{half.decode()} is half a character: the text was cut within one"
    elif isinstance(error, UnicodeDecodeError):
        what = f"it is not UTF-8 (byte {error.start})" + (": the text was cut within a character" if error.reason in _CUT else "")
    return Unreadable(Refusal("bad_payload", f"the payload can't be read: {what}"), id_of(payload))


_CUT: Final = frozenset({"unexpected end of data", "invalid continuation byte"})


def glance(payload: bytes) -> tuple[str | None, bool]:
    """The id of what may be a request, where it has one, and whether it says that it is a `send`.

    What is in it beside that is not read, and neither is what is packed.
    """
    json = payload[:1] not in _MSGPACK_MAPS
    try:
        found = (_glance_json if json else _glance_msgpack).decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, False
    return _id(_short(found.id, json=json)), _short(found.op, json=json) == "send"


_MSGPACK_MAPS: Final = frozenset(bytes((first,)) for first in (*range(0x80, 0x90), 0xDE, 0xDF))
"""The first byte of a MessagePack map."""


def _short(raw: msgspec.Raw, *, json: bool) -> Any:
    """The value in it where it is short or not there, else an ellipsis. Raises nothing."""
    text = bytes(raw)
    if not text:
        return None
    if len(text) > _MAX_ID_BYTES:
        return ...
    try:
        return numbers.decode(text) if json else _any_msgpack.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def id_of(payload: bytes) -> str | None:
    """The `id` of a JSON map in which texts may be damaged, whatever stands before and behind it; None of one that is large."""
    if len(payload) > _MAX_LENIENT:
        return None
    text = _HALF.sub(b"?", payload.removeprefix(BOM)).decode(errors="replace").lstrip()
    try:
        data, _ = _lenient.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return _id(data.get("id")) if isinstance(data, dict) else None


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= 64 else None


def _half_character(payload: bytes) -> bytes | None:
    """An escape of a surrogate that does not belong to a pair."""
    found = _ALONE.search(payload) if b"\\u" in payload else None
    return None if found is None else found[0]


def _no_msgpack(payload: bytes, error: Exception) -> Refusal:
    if payload[:1] and payload[0] >= 0x80 and payload[0] >> 4 in (0x8, 0xD):
        return Refusal("bad_payload", f"the payload is not MessagePack: {error}")
    return Refusal("bad_payload", f"the payload is neither JSON nor MessagePack: {error}")
