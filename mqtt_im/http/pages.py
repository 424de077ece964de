"""Static pages: every file under `mqtt_im/web`, read once, with headers that keep a page to our own files.

`web/admin/` is served at `/admin`; a folder's page is its `index.html`. A page names its files by their whole path
(`/admin/app.js`). The web chat at `/` is served by `chat`.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY: Final = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""Our own files alone; `blob:` is what the page itself holds, such as a picture before it is sent."""

HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TYPES: Final = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}
_FOLDERS: Final = {"admin": "/admin/", "docs": "/api/docs/"}
"""Where each folder of `mqtt_im/web` is served."""


class Page(NamedTuple):
    """One file."""

    body: bytes
    type: str
    tag: str
    """Its `ETag`."""


def page_routes(*, web: bool) -> list[Route]:
    """The pages; without `web` those of the API alone."""
    return [
        Route(path, _show(page))
        for folder, root in _FOLDERS.items()
        if web or folder == "docs"
        for path, page in _pages(resources.files("mqtt_im") / "web" / folder, root)
    ]


def _pages(folder: Traversable, root: str) -> Iterator[tuple[str, Page]]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            yield from _pages(entry, f"{root}{entry.name}/")
            continue
        page = _read(entry)
        yield root + entry.name, page
        if entry.name == "index.html":
            yield root, page
            yield root.rstrip("/"), page


def _read(file: Traversable) -> Page:
    body = file.read_bytes()
    suffix = file.name[file.name.rfind(".") :]
    kind = _TYPES.get(suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in ("application/json", "image/svg+xml"):
        kind += "; charset=utf-8"
    return Page(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _show(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        headers = {**HEADERS, "ETag": page.tag}
        if page.tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(page.body, headers={**headers, "Content-Type": page.type})

    return show
