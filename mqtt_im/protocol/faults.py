"""What is wrong with a payload, in words that tell what to mend, and the request's `id` where it can be read all the same."""

from __future__ import annotations

import re
from functools import cache
from json import JSONDecoder
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from .errors import Refusal
from .requests import AnyRequest

BOM: Final = b"\xef\xbb\xbf"

_any_json = msgspec.json.Decoder()
_lenient = JSONDecoder()
_any_msgpack = msgspec.msgpack.Decoder()
_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*)`")
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class Unreadable(Refusal):
    """A payload that is no request; `id` is the request's, where it could be read all the same."""

    def __init__(self, refusal: Refusal, request_id: str | None) -> None:
        super().__init__(refusal.code, refusal.message)  # type: ignore[arg-type]
        self.id = request_id


def unreadable(error: Exception, payload: bytes, *, json: bool, known: bool = False) -> Unreadable:
    """Find the words for a payload that is no request, and its id where it has one; `known`: its `op` was said beside it."""
    decoder = _any_json if json else _any_msgpack
    try:
        data = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as deeper:
        return no_map(payload, deeper) if json else Unreadable(_no_msgpack(payload, deeper), None)
    if not isinstance(data, dict):
        return Unreadable(Refusal("bad_payload", "expected one map (a JSON object)"), None)
    request_id = _id(data)
    if isinstance(error, Refusal):
        return Unreadable(error, request_id)
    if "op" not in data and not known:
        return Unreadable(Refusal("bad_field", "op: missing"), request_id)
    found = _WHERE.match(str(error))
    what, path = (found["what"], found["path"]) if found else (str(error), None)
    if path == "op":
        if known:
            return Unreadable(Refusal("bad_field", "op: another one than the path names"), request_id)
        if isinstance(data["op"], str):
            return Unreadable(Refusal("unknown_op", f"op: {data['op'][:64]!r} is not known"), request_id)
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


def id_of(payload: bytes) -> str | None:
    """The `id` of a JSON map in which texts may be damaged, whatever stands before and behind it."""
    text = _HALF.sub(b"?", payload.removeprefix(BOM)).decode(errors="replace").lstrip()
    try:
        data, _ = _lenient.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return _id(data) if isinstance(data, dict) else None


def _id(data: dict[Any, Any]) -> str | None:
    request_id = data.get("id")
    return request_id if isinstance(request_id, str) and 1 <= len(request_id) <= 64 else None


def _half_character(payload: bytes) -> bytes | None:
    """An escape of a surrogate that does not belong to a pair."""
    expected = -1
    for found in _HALF.finditer(payload):
        high = found[0][3:4] in b"89abAB"
        if expected == found.start():
            expected = -1
            if not high:
                continue
        if not high or payload[found.end() : found.end() + 2] != b"\\u":
            return found[0]
        following = _HALF.match(payload, found.end())
        if following is None or following[0][3:4] in b"89abAB":
            return found[0]
        expected = found.end()
    return None


def _no_msgpack(payload: bytes, error: Exception) -> Refusal:
    if payload[:1] and payload[0] >= 0x80 and payload[0] >> 4 in (0x8, 0xD):
        return Refusal("bad_payload", f"the payload is not MessagePack: {error}")
    return Refusal("bad_payload", f"the payload is neither JSON nor MessagePack: {error}")
