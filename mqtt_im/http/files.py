"""Files over HTTP: uploads that stream to the disk, and downloads for who may read a message that carries the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mqtt_im.core import costs
from mqtt_im.files.errors import FileRefused
from mqtt_im.files.receiving import PIECE
from mqtt_im.files.service import Files, clean_name
from mqtt_im.files.table import Stored
from mqtt_im.files.threads import Content
from mqtt_im.http.asgi import header
from mqtt_im.http.body import Gone
from mqtt_im.http.connection import HttpConnection
from mqtt_im.http.errors import Problem, unavailable
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.tickets import Tickets
from mqtt_im.http.who import caller_of, pay
from mqtt_im.protocol.codec import encode_json
from mqtt_im.protocol.errors import Refusal

PATIENCE_S: Final = 60.0
"""A client that sends nothing of a body for so long is gone."""
PAUSE_S: Final = 1.0
"""The longest that a piece of a file waits for the rate of its user."""
LEAST: Final = 16 << 10
"""Bytes of a file that are read at once, where many clients have not read what they have."""
AT_ONCE: Final = 4
"""Pieces of files that are read and written at once, of all clients together: in a turn of the loop there are no more."""
DEFAULT_TYPE: Final = "application/octet-stream"
_BEYOND: Final = 10**18
"""More bytes than a file has."""
_INLINE: Final = ("image/", "audio/", "video/")
_HEADERS: Final = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Accept-Ranges": "bytes",
}


class Part(NamedTuple):
    """The bytes of a file that are asked for."""

    start: int
    size: int
    whole: bool


class FileRoutes:
    """Answers requests about files."""

    def __init__(self, desk: Desk, tickets: Tickets) -> None:
        self._desk = desk
        self._tickets = tickets
        self._turns = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/api/v1/files", self.upload, methods=["POST"]),
            Route("/api/v1/files/{file}", self.download, methods=["GET", "HEAD"]),
        ]

    async def upload(self, request: Request) -> Response:
        """The body is a file of the caller's, on stable storage when it is answered. Raises `Problem`, and `Gone`."""
        services = self._desk.open()
        caller = caller_of(services, request.scope, self._tickets.address(request.scope))
        files = services.files
        kind = (header(request.scope, b"content-type") or "").partition(";")[0].strip().lower() or DEFAULT_TYPE
        length = header(request.scope, b"content-length")
        size = int(length) if length is not None and length.isdigit() else None
        try:
            if not _is_type(kind):
                raise Problem("unsupported_type", "Content-Type: expected a media type, such as image/png")
            files.check(kind, size)
            name = clean_name(request.query_params.get("name", ""))
            await pay(services, caller.user, costs.of_file(size or 0))
            with self._desk:
                pieces = paid(_body(request, files), services, caller.user, size or 0)
                stored = await files.receive(caller.user, name, kind, size, pieces)
        except FileRefused as refused:
            services.metrics.count("uploads_refused", code=refused.code)
            raise Problem(refused.code, refused.message, {"Connection": "close"}) from None
        except OSError as error:
            services.metrics.count("uploads_refused", code="unavailable")
            raise unavailable(
                f"the file can't be stored at the moment ({error.strerror or 'the store fails'}); try again"
            ) from error
        services.metrics.count("uploads")
        fields = {"id": stored.id, "name": stored.name, "type": stored.type, "size": stored.size, "sha256": stored.sha256}
        return Response(encode_json(fields), 201, {"Cache-Control": "no-store"}, "application/json")

    async def download(self, request: Request) -> Response:
        """The file, or a part of it, for who may read it. Raises `Problem`."""
        services = self._desk.open()
        file = str(request.path_params["file"])
        caller = await self._tickets.caller(services, request.scope, f"files/{file}")
        await pay(services, caller.user, costs.FILE)
        try:
            stored = await services.files.readable(
                caller.user,
                file,
                lambda seconds: services.transport.charge(caller.user, costs.of_more_time(seconds, costs.FILE)),
            )
        except Refusal as refusal:
            raise Problem.of(refusal) from None
        if stored is None:
            raise Problem("not_found", "there is no such file that you may read")
        headers = {**_HEADERS, "ETag": f'"{stored.sha256 or stored.id}"', "Content-Disposition": _disposition(stored)}
        known = request.headers.get("If-None-Match", "")
        if headers["ETag"] in known or known.strip() == "*":
            return Response(status_code=304, headers=headers)
        part = _part(request, stored, headers["ETag"])
        headers |= {"Content-Type": _shown_type(stored), "Content-Length": str(part.size)}
        if not part.whole:
            headers["Content-Range"] = f"bytes {part.start}-{part.start + part.size - 1}/{stored.size}"
        status = 200 if part.whole else 206
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        try:
            content = await services.files.open(stored, part.start, part.size)
        except FileNotFoundError:
            raise Problem("not_found", "the content of this file is lost") from None
        except OSError as error:
            raise unavailable("the file can't be read at the moment; try again") from error
        return Sending(content, status, headers, services, caller.user, self._turns)


class Sending(Response):
    """Sends the content as fast as the client takes it and its user's rate has room for, and closes it in any case."""

    def __init__(
        self,
        content: Content,
        status: int,
        headers: dict[str, str],
        services: Services,
        user: str,
        turns: asyncio.Semaphore,
    ) -> None:
        """`turns`: what all of them share."""
        super().__init__(status_code=status, headers=headers)
        self._turns = turns
        self._content = content
        self._services, self._user = services, user

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as long as there is a client."""
        connection: HttpConnection = scope["mqtt_im.connection"]
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while self._content.left:
                if not await connection.is_read():
                    return
                async with self._turns:
                    piece = await self._content.read(connection.places.held.share(PIECE, LEAST))
                    units = costs.of_reading(len(piece))
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    del piece  # what is not read yet is counted with the connection, and nowhere else
                await spend(self._services, self._user, units)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._content.close()


async def _body(request: Request, files: Files) -> AsyncIterator[bytes]:
    """What comes of it, which stays where it came in, and is counted there, until there is room for it."""
    connection: HttpConnection = request.scope["mqtt_im.connection"]
    more = True
    while more:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await connection.arrived()
        except TimeoutError:
            raise Problem("bad_payload", "the body did not come in time", {"Connection": "close"}, status=408) from None
        await files.gathering.room()
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        more = message.get("more_body", False)
        yield message.pop("body", b"")


async def paid(pieces: AsyncIterator[bytes], services: Services, user: str, size: int) -> AsyncGenerator[bytes, None]:
    """The same bytes; what follows those beyond the `size` that was paid for comes when the user's rate has room for them."""
    async for piece in pieces:
        beyond, size = max(0, len(piece) - size), max(0, size - len(piece))
        yield piece
        del piece  # nothing of it stays in memory while the next one is waited for
        if beyond:
            await spend(services, user, costs.of_coming(beyond))


async def spend(services: Services, user: str, units: float) -> None:
    """The user has paid, after a moment where the rate is used up: a file goes on slowly beside whatever else the user does."""
    services.transport.charge(user, units)
    if owed := services.transport.owes(user):
        await asyncio.sleep(min(owed, PAUSE_S))


def _is_type(kind: str) -> bool:
    main, slash, sub = kind.partition("/")
    return bool(slash) and len(kind) <= 127 and all(part and _TOKEN.issuperset(part) for part in (main, sub))


_TOKEN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$&-^_.+")
"""Characters of a media type's two parts (RFC 6838, section 4.2)."""


def _is_inline(kind: str) -> bool:
    return kind == "text/plain" or (kind.startswith(_INLINE) and "svg" not in kind and "xml" not in kind)


def _shown_type(stored: Stored) -> str:
    return "text/plain; charset=utf-8" if stored.type == "text/plain" else stored.type


def _disposition(stored: Stored) -> str:
    """RFC 6266, with the name in RFC 8187's form."""
    how = "inline" if _is_inline(stored.type) else "attachment"
    return f"{how}; filename*=UTF-8''{quote(stored.name, safe='')}"


def _part(request: Request, stored: Stored, tag: str) -> Part:
    """What `Range` asks for (RFC 9110, section 14): one range, or the whole file. Raises `bad_range`."""
    given = request.headers.get("Range", "")
    whole = Part(0, stored.size, whole=True)
    unit, _, ranges = given.partition("=")
    condition = request.headers.get("If-Range")
    if unit.strip().lower() != "bytes" or "," in ranges or (condition is not None and condition != tag):
        return whole
    first, dash, last = (text.strip() for text in ranges.partition("-"))
    if not dash or not all(text.isascii() and text.isdigit() for text in (first, last) if text) or not (first or last):
        return whole
    if not first:
        start, end = max(0, stored.size - _number(last)), stored.size - 1
    else:
        start, end = _number(first), min(_number(last) if last else stored.size - 1, stored.size - 1)
        if last and _number(last) < start:
            return whole
    if start >= stored.size or start > end:
        raise Problem("bad_range", f"the file has {stored.size} bytes", {"Content-Range": f"bytes */{stored.size}"})
    return Part(start, end - start + 1, whole=False)


def _number(digits: str) -> int:
    """What they say, or what is larger than every file: `int` refuses thousands of digits, and takes its time for hundreds."""
    digits = digits.lstrip("0")
    return _BEYOND if len(digits) >= len(str(_BEYOND)) else int(digits or "0")
