"""Reading a request's body: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from mqtt_im.http.asgi import Receive, Scope, header
from mqtt_im.http.connection import HttpConnection
from mqtt_im.http.errors import Problem

PATIENCE_S: Final = 30.0
"""Within this a small body has come."""


class Gone(Exception):
    """The client has hung up; there is nobody to answer."""


def check_json(scope: Scope) -> None:
    """Raise where the body is said to be no JSON."""
    given = header(scope, b"content-type")
    if given is None or given.partition(";")[0].strip().lower() != "application/json":
        raise Problem("unsupported_type", "the body's Content-Type must be application/json")


def check_length(scope: Scope, limit: int) -> None:
    """Raise where the body is said to be longer than `limit` bytes."""
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise Problem("too_large", f"the body has {length} bytes, of at most {limit}")


async def read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes. Raises `Problem`, and `Gone`."""
    check_length(scope, limit)
    # Most bodies have come with their heads, and a time-out costs more than taking them.
    message = await (_next(receive, PATIENCE_S) if scope["mqtt_im.connection"].cycle.more_body else _taken(receive))
    if not message.get("more_body"):
        return _bounded(message.get("body", b""), limit)
    connection: HttpConnection = scope["mqtt_im.connection"]
    parts = [message.get("body", b"")]
    size = len(parts[0])
    connection.hold(size)  # here instead of where it came in
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while message.get("more_body"):
        message = await _next(receive, deadline - asyncio.get_running_loop().time())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        connection.hold(len(parts[-1]))
        if size > limit:
            raise Problem("too_large", f"the body has more than {limit} bytes")
    return _bounded(b"".join(parts), limit)


def _bounded(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise Problem("too_large", f"the body has {len(body)} bytes, of at most {limit}")
    return body


async def _next(receive: Receive, patience_s: float) -> Any:
    try:
        async with asyncio.timeout(patience_s):
            return await _taken(receive)
    except TimeoutError:
        raise Problem("bad_payload", "the body did not come in time", {"Connection": "close"}, status=408) from None


async def _taken(receive: Receive) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message


async def read_as(scope: Scope, receive: Receive, limit: int, kind: type[Any]) -> Any:
    """The JSON map in the body as a `kind` of struct. Raises `Problem`, and `Gone`."""
    check_json(scope)
    body = await read(scope, receive, limit)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if not body.lstrip(b" \t\r\n").startswith(b"{"):
            raise Problem("bad_payload", "expected one map (a JSON object)") from None
        raise Problem("bad_field", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("bad_payload", f"no JSON: {error}") from None
