"""Backup and compaction, as the commands do them, answered when they are done."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.disk import reason
from mqtt_im.http.admin.guard import Guard, answer, note, read
from mqtt_im.http.errors import Problem
from mqtt_im.http.services import Services
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.sqlite.backup import backup

FOLDER: Final = "backups"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class NewBackup(msgspec.Struct):
    """What `backup` is asked with."""

    name: str


class Maintenance:
    """Answers `maintenance/…`."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def routes(self) -> list[Route]:
        """Where they are."""
        route = self._guard.route
        return [*route("maintenance/backup", post=self.backup), *route("maintenance/compact", post=self.compact)]

    async def backup(self, services: Services, request: Request) -> Response:
        """A copy of messages and accounts stands in `data_dir/backups`."""
        if services.config.store.url:
            raise Problem("forbidden", "the store is in PostgreSQL; back it up with pg_dump")
        given: NewBackup = await read(request, NewBackup)
        if not _NAME.fullmatch(given.name):
            raise Problem("bad_field", "name: 1 to 128 of A-Z a-z 0-9 _ . -, and not a dot or hyphen first")
        data_dir = Path(services.config.data_dir)
        target = data_dir / FOLDER / given.name
        await asyncio.to_thread(_backup, data_dir, target)
        note("backup made", file=str(target))
        return answer({"name": given.name, "size": target.stat().st_size}, 201)

    async def compact(self, services: Services, request: Request) -> Response:
        """What retention lets go is gone."""
        removed = await services.compact()
        note("compacted", messages=removed.messages)
        return answer({"messages": removed.messages, "items": removed.items, "rows": removed.rows})


def _backup(data_dir: Path, target: Path) -> None:
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(reason(target.parent, error)) from error
    backup(data_dir, target)
