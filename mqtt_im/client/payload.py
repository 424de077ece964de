"""What is inside the packets: maps as JSON or MessagePack, either of them perhaps as a zlib stream (protocol, "Payloads").

Binary is `bytes` on this side whatever the codec; in JSON it travels as `{"$bin": base64}`.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Final, Literal

import msgspec

from mqtt_im.protocol import numbers

Codec = Literal["json", "msgpack"]
Map = dict[str, Any]

_ZLIB: Final = 0x78
_BIN: Final = "$bin"
_MIN_ZIP_BYTES: Final = 128
_MAX_UNPACKED: Final = 16 * 1024 * 1024
_JSON_FIRST: Final = frozenset(b"{ \t\r\n")


class Nonsense(ValueError):
    """A payload that is no map in any of the forms."""


def encode(value: Any, codec: Codec) -> bytes:
    """One value; a `msgspec.Raw` in it is spliced as it is. Raises `ValueError` or `TypeError` where it has no such form."""
    try:
        if codec == "msgpack":
            return msgspec.msgpack.encode(value)
        return msgspec.json.encode(_marked(value))
    except (OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise ValueError(f"this value can't be sent: {error}") from error


def deflated(payload: bytes) -> bytes:
    """As a zlib stream, where that is shorter."""
    if len(payload) < _MIN_ZIP_BYTES:
        return payload
    packed = zlib.compress(payload, 1)
    return packed if len(packed) < len(payload) else payload


def decode(payload: bytes, op: str | None = None) -> Map:
    """The map in a payload of any form; with `op` as its op where that is given. Raises `Nonsense`."""
    try:
        if payload[:1] == bytes((_ZLIB,)):
            stream = zlib.decompressobj()
            payload = stream.decompress(payload, _MAX_UNPACKED)
            if not stream.eof:
                raise Nonsense("a zlib stream that is cut, or too large")
        if payload and payload[0] in _JSON_FIRST:
            value = numbers.decode(payload)
            if b"$bin" in payload or b"\\u" in payload:
                value = _unmarked(value)
        else:
            value = msgspec.msgpack.decode(payload)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Nonsense(str(error)) from error
    if isinstance(value, dict) and op is not None:
        value["op"] = op
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise Nonsense("no map with an op")
    return value


def _marked(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BIN: base64.b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    return value


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(text := value.get(_BIN), str):
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:
                return value
        return {key: _unmarked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    return value
