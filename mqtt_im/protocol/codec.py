"""Payloads: JSON, MessagePack, and zlib of either, told apart by the first byte (PROTOCOL §3).

Inside the server a body is always JSON text: a JSON sender's bytes are kept as they came, and are spliced into what
JSON devices get without being parsed. Binary stands in it as `{"$bin": base64}`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec

from .errors import Refusal
from .requests import MAX_PUSH_BYTES, AnyRequest, Edit, Report, Request, Send
from .weight import MAX_PARTS, parts_at_most, too_many_parts

_ZLIB: Final = 0x78
_JSON_FIRST: Final = frozenset(b'{ \t\r\n["-0123456789tfn')
MAX_DEPTH: Final = 100
"""Lists and maps inside each other, of a body."""

_RAW: Final[dict[type[Request], str]] = {Send: "body", Edit: "body", Report: "result"}
"""The field of a request that stays encoded."""
_THE_SAME: Final = frozenset((str, int, bool, type(None)))
"""What is the same in JSON and in MessagePack, whatever its value."""
_json = msgspec.json.Decoder(AnyRequest)
_msgpack = msgspec.msgpack.Decoder(AnyRequest)
_any_json = msgspec.json.Decoder()
_any_msgpack = msgspec.msgpack.Decoder()
_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode
_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*)`")


class Unreadable(Refusal):
    """A payload that is no request; `id` is the request's, where it could be read all the same."""

    def __init__(self, refusal: Refusal, request_id: str | None) -> None:
        super().__init__(refusal.code, refusal.message)  # type: ignore[arg-type]
        self.id = request_id


def decode_request(payload: bytes, max_body: int, max_unpacked: int) -> Request:
    """The request in a payload, its body as JSON text.

    `max_body` is the limit of a body's encoded bytes as received, `max_unpacked` that of a zlib stream's content, both in
    bytes. Raises `Unreadable`.
    """
    if payload and payload[0] == _ZLIB:
        payload = _inflate(payload, max_unpacked)
    if not payload:
        raise Unreadable(Refusal("bad_payload", "the payload is empty; send one JSON or MessagePack map"), None)
    if payload[0] in _JSON_FIRST:
        return _decode_json(_json, payload, max_body)
    return _decode_msgpack(payload, max_body)


class _Named(msgspec.Struct):
    id: Any = None


_named: Final = msgspec.json.Decoder(_Named)


@cache
def _decoder_of(kind: type[Request]) -> msgspec.json.Decoder[Request]:
    return msgspec.json.Decoder(kind)


def decode_fields(
    kind: type[Request], payload: bytes, key: str | None, make_id: Callable[[], str] | None, max_body: int
) -> Request:
    """The request of a known kind in a JSON map of its fields, without `op`.

    `key` is its id, where that was said beside the map; `make_id` makes one where it has none. Raises `Unreadable`.
    """
    try:
        given = _named.decode(payload).id
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_map(error, payload) from None
    except UnicodeDecodeError as error:
        raise Unreadable(Refusal("bad_payload", f"the payload is not UTF-8 (byte {error.start})"), None) from None
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


def _no_map(error: Exception, payload: bytes) -> Unreadable:
    try:
        is_map = isinstance(_any_json.decode(payload), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Unreadable(Refusal("bad_payload", f"no JSON: {error}"), None)
    return Unreadable(Refusal("bad_payload", str(error) if is_map else "expected one map (a JSON object)"), None)


def _decode_json(decoder: msgspec.json.Decoder[Any], payload: bytes, max_body: int, *, known: bool = False) -> Request:
    try:
        if not payload.isascii():
            payload.decode()  # msgspec leaves the text inside a raw body unchecked
        request: Request = decoder.decode(payload)
        request.check()
    except UnicodeDecodeError as error:
        raise Unreadable(Refusal("bad_payload", f"the payload is not UTF-8 (byte {error.start})"), None) from None
    except RecursionError:
        raise Unreadable(Refusal("bad_payload", "the payload is nested too deeply"), None) from None
    except (msgspec.DecodeError, Refusal) as error:
        raise _unreadable(error, payload, _any_json, known=known) from None
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
        value = _any_json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(Refusal("bad_payload", f"the body is not JSON: {error}"), request_id) from None
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
        request: AnyRequest = _msgpack.decode(payload)
        request.check()
    except RecursionError:
        raise Unreadable(Refusal("bad_payload", "the payload is nested too deeply"), None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, Refusal) as error:
        raise _unreadable(error, payload, _any_msgpack) from None
    if (field := _RAW.get(type(request))) is not None:
        raw = bytes(getattr(request, field))
        _check_sizes(request, field, raw, max_body)
        try:
            if raw:
                value = _any_msgpack.decode(raw)
                _check_parts(value, request.id)
                setattr(request, field, msgspec.Raw(_encode_json(_to_json(value))))
            if isinstance(request, Send) and request.push is not None:
                request.push = _to_json(request.push)
            _check_raw(bytes(getattr(request, field)), request.id)
        except RecursionError:
            raise Unreadable(Refusal("bad_payload", f"{field}: nested too deeply"), request.id) from None
        except (msgspec.DecodeError, msgspec.EncodeError, TypeError, ValueError, OverflowError) as error:
            raise Unreadable(Refusal("bad_field", f"{field}: no JSON form of it exists ({error})"), request.id) from None
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
    return data


def _unreadable(
    error: Exception,
    payload: bytes,
    decoder: msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any],
    *,
    known: bool = False,
) -> Unreadable:
    """Find the words for a payload that is no request, and its id where it has one."""
    try:
        data = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as deeper:
        return Unreadable(Refusal("bad_payload", f"neither JSON nor MessagePack: {deeper}"), None)
    if not isinstance(data, dict):
        return Unreadable(Refusal("bad_payload", "expected one map (a JSON object)"), None)
    request_id = data.get("id")
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= 64:
        request_id = None
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
    return Unreadable(Refusal("bad_field", f"{path}: {what}" if path else what), request_id)


def _to_json(value: Any) -> Any:
    """MessagePack data as JSON data: binary becomes `{"$bin": base64}`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bin": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _key(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return value if set(map(type, value)) <= _THE_SAME else [_to_json(item) for item in value]
    if isinstance(value, msgspec.msgpack.Ext):
        raise ValueError("an extension type")
    return value


def _key(key: object) -> str:
    if isinstance(key, bool) or not isinstance(key, int | float):
        raise ValueError("a map key that is neither text nor a number")
    return str(key)


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
    value = _any_json.decode(text)
    if b"$bin" not in text and b"\\u" not in text:  # so nothing in it is binary, however it was written
        with contextlib.suppress(OverflowError):
            return _encode_msgpack(value)
    return _encode_msgpack(_to_msgpack(value))


def encode_json(value: Any) -> bytes:
    """A reply as JSON text; `msgspec.Raw` in it is spliced as it is."""
    return _encode_json(value)


def deflate(payload: bytes) -> bytes:
    """The payload as a zlib stream (first byte 0x78), or as it is where that is not shorter."""
    packed = zlib.compress(payload, 1)
    return packed if len(packed) < len(payload) else payload
