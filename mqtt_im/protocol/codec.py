"""Payloads: JSON, MessagePack, and zlib of either, told apart by the first byte (PROTOCOL §3).

Inside the server a body is always JSON text: a JSON sender's bytes are kept as they came, and are spliced into what
JSON devices get without being parsed. Binary stands in it as `{"$bin": base64}`.
"""

from __future__ import annotations

import base64
import contextlib
import zlib
from collections.abc import Callable
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Any, Final

import msgspec

from . import numbers
from .errors import Refusal
from .faults import BOM, Unreadable, glance, no_map, unreadable
from .requests import MAX_PUSH_BYTES, AnyRequest, Edit, Named, Report, Request, Send
from .weight import MAX_PARTS, parts_at_most, too_many_parts

ZLIB: Final = b"\x78"
"""The first byte of a payload that is a zlib stream."""
_JSON_FIRST: Final = frozenset(b'{ \t\r\n["-0123456789tfn')
MAX_DEPTH: Final = 100
"""Lists and maps inside each other, of a body."""

_RAW: Final[dict[type[Request], str]] = {Send: "body", Edit: "body", Report: "result"}
"""The field of a request that stays encoded."""
_THE_SAME: Final = frozenset((str, int, bool, type(None)))
"""What is the same in JSON and in MessagePack, whatever its value."""
_WHOLE: Final = ("n", "seq", "pos", "after", "before", "limit", "until", "ttl", "reply_to", "window", "batch")
"""Fields of requests that are whole numbers."""
_LONGEST_NUMBER: Final = 64
_EXACT: Final = 2**53
_MOST_LOOKED_THROUGH: Final = 2_000_000
"""Bytes, over all maps and lists in each other, in which keys are compared: each is read once for each that it stands in."""
_GLANCED: Final = 8192
"""Bytes of a packed payload that are unpacked to see what it would be."""
_json = msgspec.json.Decoder(AnyRequest, float_hook=numbers.number)
_msgpack = msgspec.msgpack.Decoder(AnyRequest)
_any_msgpack = msgspec.msgpack.Decoder()
_raw_items = msgspec.msgpack.Decoder(list[msgspec.Raw])
_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode


def decode_request(payload: bytes, max_body: int, max_unpacked: int) -> Request:
    """The request in a payload; see `unpacked` and `decode_unpacked`. Raises `Unreadable`."""
    return decode_unpacked(unpacked(payload, max_unpacked), max_body)


def unpacked(payload: bytes, limit: int) -> bytes:
    """The payload, of a zlib stream what is in it: at most `limit` bytes. Raises `Unreadable`."""
    return _inflate(payload, limit) if payload[:1] == ZLIB else payload


def glance_at(payload: bytes) -> tuple[str | None, bool]:
    """The id of what may be a request, where that is seen without reading all of it, and whether it may be a `send`."""
    if payload[:1] != ZLIB:
        return glance(payload)
    try:
        return glance(_inflate(payload, _GLANCED))
    except Unreadable:
        return None, True


def decode_unpacked(payload: bytes, max_body: int) -> Request:
    """The request in a payload that is no zlib stream, its body as JSON text.

    `max_body` is the limit of a body's encoded bytes as received. Raises `Unreadable`.
    """
    if not payload:
        raise Unreadable(Refusal("bad_payload", "the payload is empty; send one JSON or MessagePack map"), None)
    if payload[0] in _JSON_FIRST or payload.startswith(BOM):
        return _decode_json(_json, payload, max_body)
    return _decode_msgpack(payload, max_body)


_named: Final = msgspec.json.Decoder(Named, float_hook=numbers.number)


@cache
def _decoder_of(kind: type[Request]) -> msgspec.json.Decoder[Request]:
    return msgspec.json.Decoder(kind, float_hook=numbers.number)


def decode_fields(
    kind: type[Request], payload: bytes, header: bytes | None, make_id: Callable[[], str] | None, max_body: int
) -> Request:
    """The request of a known kind in a JSON map of its fields, without `op`.

    `header` is its id, where that was said beside the map; `make_id` makes one where it has none. Raises `Unreadable`.
    """
    try:
        given = _named.decode(payload).id
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_one_map(error, payload) from None
    except UnicodeDecodeError as error:
        raise no_map(payload, error) from None
    try:
        key = None if header is None else header.decode()
    except UnicodeDecodeError:
        raise Unreadable(Refusal("bad_field", "id: the header Idempotency-Key is no UTF-8"), None) from None
    if key is not None and given is not None and given != key:
        raise Unreadable(Refusal("bad_field", "id: the map and the header Idempotency-Key name two"), None)
    if given is None:
        given = key if key is not None or make_id is None else make_id()
        if given is not None:
            inside = payload.strip()[1:].lstrip()
            comma = b"" if inside.startswith(b"}") else b","
            payload = b'{"id":%b%b%b' % (_encode_json(given), comma, inside)
    request = _decode_json(_decoder_of(kind), payload, max_body, known=True)
    if request.id is None and isinstance(given, str):
        request.id = given  # the map says `null`
    return request


def _not_one_map(error: Exception, payload: bytes) -> Unreadable:
    if isinstance(error, msgspec.ValidationError):  # its field may be anything
        return Unreadable(Refusal("bad_payload", "expected one map (a JSON object)"), None)
    return no_map(payload, error)


def _decode_json(decoder: msgspec.json.Decoder[Any], payload: bytes, max_body: int, *, known: bool = False) -> Request:
    try:
        if not payload.isascii():
            payload.decode()  # msgspec leaves the text inside a raw body unchecked
        try:
            request: Request = decoder.decode(payload)
        except msgspec.ValidationError:
            whole = _with_whole_numbers(payload, msgspec.json)
            if whole is None:
                raise
            request = decoder.decode(whole)
        request.check()
    except UnicodeDecodeError as error:
        raise no_map(payload, error) from None
    except RecursionError:
        raise Unreadable(Refusal("bad_payload", "the payload is nested too deeply"), None) from None
    except (msgspec.DecodeError, Refusal) as error:
        raise unreadable(error, payload, json=True, known=known) from None
    if (field := _RAW.get(type(request))) is not None:
        raw = bytes(getattr(request, field))
        _check_sizes(request, field, raw, max_body)
        _check_raw(raw, request.id)
    return request


def _check_raw(raw: bytes, request_id: str | None) -> None:
    """Raise where a device could not be given this JSON text later. Most texts need no parsing to be sure."""
    # Skipping a value, as msgspec does for a raw field, accepts what parsing it does not: escapes that name no character,
    # numbers that are too large.
    if raw[:1] in (b'"', b"") and b"\\u" not in raw:
        return
    parts = parts_at_most(raw)
    try:
        value = numbers.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(no_map(raw, error), request_id) from None
    if parts > MAX_PARTS:
        _check_parts(value, request_id)
    if parts > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Unreadable(Refusal("bad_payload", f"the body is nested more than {MAX_DEPTH} deep"), request_id)


def _check_parts(value: Any, request_id: str | None) -> None:
    if too_many_parts(value):
        text = f"the body has more than {MAX_PARTS} lists, maps and binaries; send it as a text or a file"
        raise Unreadable(Refusal("bad_payload", text), request_id)


def _depth(value: Any) -> int:
    """How many lists and maps stand in each other; 0 where `value` is neither."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _decode_msgpack(payload: bytes, max_body: int) -> Request:
    try:
        try:
            request: AnyRequest = _msgpack.decode(payload)
        except msgspec.ValidationError:
            whole = _with_whole_numbers(payload, msgspec.msgpack)
            if whole is None:
                raise
            request = _msgpack.decode(whole)
        request.check()
    except RecursionError:
        raise Unreadable(Refusal("bad_payload", "the payload is nested too deeply"), None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, Refusal) as error:
        raise unreadable(error, payload, json=False) from None
    if (field := _RAW.get(type(request))) is not None:
        raw = bytes(getattr(request, field))
        _check_sizes(request, field, raw, max_body)
        try:
            if raw:
                value = _any_msgpack.decode(raw)
                _check_parts(value, request.id)
                text = _encode_json(_to_json(value))
                _check_raw(text, request.id)  # how deep it is too, which the following depends on
                if isinstance(value, dict | list) and _encode_msgpack(value) != raw and _has_key_twice(raw, value):
                    raise _NoJsonError("a map with the same key twice")
                setattr(request, field, msgspec.Raw(text))
            if isinstance(request, Send) and request.push is not None:
                request.push = _to_json(request.push)
        except RecursionError:
            raise Unreadable(Refusal("bad_payload", f"{field}: nested too deeply"), request.id) from None
        except _NoJsonError as error:
            raise Unreadable(Refusal("bad_payload", f"{field}: JSON has no form of {error}"), request.id) from None
        except (msgspec.DecodeError, msgspec.EncodeError, TypeError, ValueError, OverflowError) as error:
            raise Unreadable(Refusal("bad_payload", f"{field}: JSON has no form of it ({error})"), request.id) from None
    return request


def _check_sizes(request: Request, field: str, raw: bytes, max_body: int) -> None:
    if len(raw) > max_body:
        raise Unreadable(Refusal("too_large", f"{field}: {len(raw)} bytes, of at most {max_body}"), request.id)
    if isinstance(request, Send) and request.push is not None:
        try:
            size = len(_encode_msgpack(request.push))
        except (OverflowError, RecursionError):
            raise Unreadable(
                Refusal("bad_field", "push: a number of more than 64 bits, or nested too deeply"), request.id
            ) from None
        if size > MAX_PUSH_BYTES:
            raise Unreadable(Refusal("too_large", f"push: {size} bytes, of at most {MAX_PUSH_BYTES}"), request.id)
        if _depth(request.push) > MAX_DEPTH:
            raise Unreadable(Refusal("bad_field", f"push: nested more than {MAX_DEPTH} deep"), request.id)


def _inflate(payload: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, limit + 1)
    except zlib.error:
        raise Unreadable(Refusal("bad_payload", "the payload begins like a zlib stream and is none"), None) from None
    if len(data) > limit:
        raise Unreadable(Refusal("too_large", f"the payload unpacks to more than {limit} bytes"), None)
    if not stream.eof:
        raise Unreadable(Refusal("bad_payload", "the zlib stream ends too early"), None)
    if stream.unused_data:
        raise Unreadable(Refusal("bad_payload", f"{len(stream.unused_data)} bytes stand behind the zlib stream"), None)
    return data


class _NoJsonError(Exception):
    """A value that JSON devices could not be given."""


def _to_json(value: Any) -> Any:
    """MessagePack data as JSON data: binary becomes `{"$bin": base64}`. Raises `_NoJsonError`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bin": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        found = {key if isinstance(key, str) else _key(key): _to_json(item) for key, item in value.items()}
        if len(found) != len(value):
            raise _NoJsonError("a map with two keys that are the same as text, such as 1 and '1'")
        return found
    if isinstance(value, list | tuple):
        return value if set(map(type, value)) <= _THE_SAME else [_to_json(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        raise _NoJsonError(f"{value}; leave the field out, or send null")
    if isinstance(value, datetime):
        raise _NoJsonError("a timestamp, which is an extension type; send it as a text or a number")
    if isinstance(value, msgspec.msgpack.Ext):
        raise _NoJsonError("an extension type")
    return value


_MAPS: Final = {0xDE: 2, 0xDF: 4}
"""The first byte of a map that is no small one, and how many bytes its length has."""
_NESTED: Final = frozenset((dict, list))


def _has_key_twice(whole: bytes, value: Any) -> bool:
    """Whether a map in this MessagePack value has a key twice, of which only the last one is left in what was decoded.

    Raises `RecursionError` where it is too large for how deep it is.
    """
    waiting: list[tuple[bytes, Any]] = [(whole, value)]
    left = _MOST_LOOKED_THROUGH
    while waiting:
        raw, found = waiting.pop()
        left -= len(raw)
        if left < 0:
            raise RecursionError
        if type(found) is list:
            if _NESTED.isdisjoint(map(type, found)):
                continue
            items, values = _raw_items.decode(raw), found
        else:
            first = raw[0]
            size = _MAPS.get(first, 0)
            count = int.from_bytes(raw[1 : 1 + size], "big") if size else first & 0xF
            if count != len(found):
                return True
            if _NESTED.isdisjoint(map(type, found.values())):
                continue
            # Behind its first bytes a map is a list of keys and values.
            items = _raw_items.decode(b"\xdd" + (2 * count).to_bytes(4, "big") + raw[1 + size :])[1::2]
            values = list(found.values())
        waiting += [(bytes(item), inner) for item, inner in zip(items, values, strict=True) if type(inner) in _NESTED]
    return False


def _key(key: object) -> str:
    if isinstance(key, bool) or not isinstance(key, int | float):
        raise _NoJsonError(f"{key!r:.40} as a key")
    if not isfinite(key):
        raise _NoJsonError(f"{key} as a key")
    return str(key)


def _with_whole_numbers(payload: bytes, codec: Any) -> bytes | None:
    """The payload with `1` in place of `1.0`, where a field of its map is such a number; None where none is."""
    fields: dict[str, msgspec.Raw] = codec.decode(payload, type=dict[str, msgspec.Raw])
    changed = False
    for name in _WHOLE:
        raw = fields.get(name)
        if raw is None or len(bytes(raw)) > _LONGEST_NUMBER:
            continue
        value = codec.decode(bytes(raw))
        if isinstance(value, float) and abs(value) <= _EXACT and value.is_integer():
            fields[name] = msgspec.Raw(codec.encode(int(value)))
            changed = True
    return codec.encode(fields) if changed else None


def _to_msgpack(value: Any) -> Any:
    """JSON data as MessagePack data: `{"$bin": base64}` becomes binary."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(text := value.get("$bin"), str):
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:  # no base64 (binascii.Error), or not even ASCII
                return value
        return {key: _to_msgpack(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_msgpack(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)  # MessagePack has no larger integers
        except OverflowError:
            return str(value)
    return value


def json_to_msgpack(text: bytes) -> bytes:
    """One JSON value as MessagePack, binary restored."""
    value = numbers.decode(text)
    if b"$bin" not in text and b"\\u" not in text:  # so nothing in it is binary, however it was written
        with contextlib.suppress(OverflowError):
            return _encode_msgpack(value)
    return _encode_msgpack(_to_msgpack(value))


def encode_json(value: Any) -> bytes:
    """A reply as JSON text; `msgspec.Raw` in it is spliced as it is."""
    return _encode_json(value)


def deflate(payload: bytes) -> bytes:
    """The payload as a zlib stream, or as it is where that is not shorter."""
    packed = zlib.compress(payload, 1)
    return packed if len(packed) < len(payload) else payload
