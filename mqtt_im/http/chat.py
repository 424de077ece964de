"""The web chat's files: `/`, `/sw.js`, `/web/…`.

They are served under `/web/VERSION/`, where VERSION is a digest of them all: what is under it never changes, so browsers keep
it for good, and a page never mixes files of two releases. `/` and `/sw.js` name the version and are asked for anew each
time. Nothing of a URL ever becomes a path on the disk.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from pathlib import Path
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mqtt_im.http.errors import Problem
from mqtt_im.http.pages import HEADERS
from mqtt_im.http.services import Desk

FOLDER: Final = Path(__file__).resolve().parent.parent / "web" / "chat"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_ANEW: Final = "no-cache"
_LATER: Final = ("vendor/", "core/line.js")
"""Loaded when the first connection is made: the page shows what it has before that."""


class File(Struct, frozen=True):
    """One file, as it is and compressed."""

    data: bytes
    zipped: bytes
    type: str
    tag: str
    """Its `ETag`."""


class Release:
    """The chat's files as they belong together. Raises `OSError` where they can't be read."""

    def __init__(self, folder: Path = FOLDER) -> None:
        raw = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in _TYPES
        }
        digest = hashlib.sha256()
        for name, data in raw.items():
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        self.version: Final = digest.hexdigest()[:16]
        index, worker = raw.pop("index.html"), raw.pop("sw.js")
        self.files: Final = {name: _file(data, Path(name).suffix) for name, data in raw.items()}
        self.index: Final = _file(self._fill(index), ".html")
        self.worker: Final = _file(self._fill(worker), ".js")

    @property
    def weight(self) -> int:
        """Bytes of everything that the page loads, compressed."""
        return sum(len(file.zipped) for file in [self.index, self.worker, *self.files.values()])

    def _fill(self, template: bytes) -> bytes:
        names = sorted(self.files)
        early = [name for name in names if name.endswith(".js") and not name.startswith(_LATER)]
        preload = "".join(f'<link rel="modulepreload" href="web/{self.version}/{name}" />\n    ' for name in early)
        start = b'<script type="module"'
        filled = template.replace(b"@VERSION@", self.version.encode()).replace(b'"@FILES@"', json.dumps(names)[1:-1].encode())
        return filled.replace(start, preload.encode() + start)


@functools.cache
def release() -> Release:
    """The files that this process serves, read once."""
    return Release()


class Chat:
    """Serves them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._release = release()

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/", self.index),
            Route("/sw.js", self.worker),
            Route("/web/server.json", self.server),
            Route("/web/{version}/{name:path}", self.file),
        ]

    async def index(self, request: Request) -> Response:
        """The page."""
        return _answer(request, self._release.index, _ANEW)

    async def worker(self, request: Request) -> Response:
        """The service worker. Its place at the top is what lets it see the page."""
        return _answer(request, self._release.worker, _ANEW)

    async def server(self, _: Request) -> Response:
        """What the page must know of the server it came from."""
        services = self._desk.open()
        config = services.config
        facts = {
            "mode": config.auth.mode,
            "registration": config.auth.mode == "accounts" and config.auth.registration,
            "websocket": config.websocket.path,
            "prefix": config.mqtt.prefix,
            "push_key": services.webpush.public_key,
            "user_claim": config.auth.jwt.user_claim,
        }
        return JSONResponse(facts, headers={**HEADERS, "Cache-Control": "no-store"})

    async def file(self, request: Request) -> Response:
        """One of the page's files."""
        found = self._release.files.get(request.path_params["name"])
        if found is None:
            raise Problem("not_found", "the web chat has no such file")
        # A page of an earlier release that asks for one more of its files gets today's, which nobody keeps.
        is_ours = request.path_params["version"] == self._release.version
        return _answer(request, found, _FOR_GOOD if is_ours else _ANEW)


def _file(data: bytes, suffix: str) -> File:
    return File(data, gzip.compress(data, 9, mtime=0), _TYPES[suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def _answer(request: Request, file: File, caching: str) -> Response:
    headers = {**HEADERS, "Cache-Control": caching, "ETag": file.tag, "Vary": "Accept-Encoding"}
    if file.tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    data = file.data
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        data = file.zipped
        headers["Content-Encoding"] = "gzip"
    return Response(data, headers={**headers, "Content-Type": file.type})
