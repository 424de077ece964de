"""The few things of ASGI that are done by hand where every microsecond counts, and that everybody here shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


def raw_header(scope: Scope, name: bytes) -> bytes | None:
    """The last header of this lower-case name, as it came; None where there is none."""
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            found = value
    return found


def header(scope: Scope, name: bytes) -> str | None:
    """The same as text."""
    found = raw_header(scope, name)
    return None if found is None else found.decode("latin-1")


def headers(scope: Scope, name: bytes) -> str:
    """All headers of this lower-case name, joined with commas (RFC 9110, section 5.3)."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


async def respond(send: Send, status: int, body: bytes, fields: Headers) -> None:
    """Answer, with the body's length."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*fields, (b"content-length", b"%d" % len(body))] if status != 204 else fields,
        }
    )
    await send({"type": "http.response.body", "body": body})
