"""Uploads and downloads, and what leaves when nobody carries it any more.

An upload is written to a temporary file, moved to its place, and only then known; a crash in between leaves a content without a
row, which goes after `ORPHAN_S`. A file leaves the other way round: its row first, in the ledger's thread, so that no message can
take it up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from mqtt_im import lasting
from mqtt_im.clock import Clock
from mqtt_im.config import FilesConfig
from mqtt_im.core.model import Upload
from mqtt_im.core.rules.files import is_carried, is_over, may_read_file
from mqtt_im.files.blobs import Blobs
from mqtt_im.files.errors import FileRefused
from mqtt_im.files.folder import Folder
from mqtt_im.files.gathering import Gathering
from mqtt_im.files.log import carrying
from mqtt_im.files.receiving import Incoming
from mqtt_im.files.table import Aged, FileTable, Stored
from mqtt_im.files.threads import Content, Threads
from mqtt_im.files.uploads import FileUploads
from mqtt_im.protocol.errors import MqttImError, Refusal, StoreError
from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.store.interface import Readable, Store
from mqtt_im.tables import Place

FOLDER: Final = "files"
MAX_NAME_BYTES: Final = 255
SWEEP_S: Final = 10.0
SLICE: Final = 50
"""Files looked at in one go on the store's thread …"""
LOOKS: Final = 200
"""… unless more than these are looked at for those before them: each file, and each message that may carry it."""
AGED: Final = 500
"""Files of which it is looked up in one go whether a message was ever to carry them."""
LEAST_BYTES: Final = 4096
"""As many a file takes of the disk: a user has no more of them than would fill the quota so …"""
MOST_FILES: Final = 1_000
"""… but may have so many, however small that is."""
SLICES: Final = 40
"""Slices of one sweep, where nothing is known to have gone."""
BREATH_S: Final = 0.002
"""Between two slices, for who else asks the store."""
UNCARRIED_S: Final = 86_400
"""So long an upload waits for a message to carry it."""
ORPHAN_S: Final = 3_600
ORPHANS_S: Final = 6 * 3_600
"""So often contents without a row are looked for."""

log = logging.getLogger(__name__)


class Ledger(Protocol):
    """What is needed of the ledger."""

    @property
    def clock(self) -> Clock:
        """By whose steady time an upload ages."""

    @property
    def epoch(self) -> str:
        """Names the store."""

    async def call(self, function: Callable[[Readable], Any], user: str = ...) -> Any:
        """What `function` has read."""

    async def decide(self, function: Callable[[Store], Any]) -> Any:
        """What `function` returns between two batches, on the ledger's thread."""


class Files:
    """The files of one server."""

    def __init__(self, config: FilesConfig, data_dir: Path, blobs: Blobs, table: FileTable, bounds: Bounds) -> None:
        """`bounds` give a share of the memory that the process may take."""
        self.config = config
        self.uploads = FileUploads(table)
        """What the ledger is given."""
        self._data_dir = data_dir
        self._incoming = data_dir / FOLDER / "incoming"
        self._blobs = blobs
        self._table = table
        self._threads = Threads()
        self._ledger: Ledger | None = None
        self._task: asyncio.Task[None] | None = None
        self.gathering = Gathering(bounds)
        """What they have in memory."""
        self._coming: dict[str, int] = {}
        """Bytes of uploads that are under way, by user."""
        self._position = ""
        self._aged = Aged(0, "", False)
        """Of the files of which it was looked up whether a message was ever to carry them, the youngest."""
        self._all = False
        """All carried files are to be looked at by the next sweep."""
        self._orphans_due = 0.0
        self.shared = False
        """Other servers have the same files and rows."""
        self.refusing = ""
        """Why no uploads are taken; empty where they are."""

    async def start(self, ledger: Ledger) -> None:
        """The carriers are those of this store; what nobody carries leaves from now on. Raises `StoreError`."""
        self._ledger = ledger
        await self._threads.run(self._open, ledger.epoch)
        self._task = asyncio.create_task(lasting.task("the sweep of files", self._sweep_on), name="files")

    async def stop(self) -> None:
        """Nothing is done any more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._threads.stop()

    def close(self) -> None:
        """The table is closed; the ledger has stopped before."""
        self._table.close()

    def _open(self, epoch: str) -> None:
        used = self._incoming.parent.exists() or bool(self.config.url)
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._table.epoch == epoch:
            return
        if self.shared:
            self._table.belongs_to(epoch)
            return
        if self._table.is_new and not used:
            self._table.begin(epoch, ())
            return
        log.info("looking through the log for messages that carry files")
        self._table.begin(epoch, carrying(self._data_dir))

    def _now(self) -> int:
        """The steady time, in ms."""
        assert self._ledger is not None
        return self._ledger.clock.steady()

    # Uploads

    def check(self, kind: str, size: int | None) -> None:
        """Raise `FileRefused` where a file of this type, and of this size where that is known, is not taken now."""
        if self.refusing:
            raise FileRefused("unavailable", self.refusing)
        if self.config.types and not any(fnmatchcase(kind, pattern) for pattern in self.config.types):
            raise FileRefused("unsupported_type", f"files of type {kind} are not taken here")
        limit = self.config.max_bytes
        if size is not None and size > limit:
            raise FileRefused("too_large", f"the file has {size} bytes, of at most {limit}")

    async def receive(self, user: str, name: str, kind: str, size: int | None, pieces: AsyncIterator[bytes]) -> Stored:
        """The file is on stable storage, and known. Raises `FileRefused`, `OSError`, `StoreError`, and what `pieces` raises."""
        incoming: Incoming | None = None
        reserved = 0
        try:
            reserved = await self._reserve(user, size or 0)
            incoming = await self._threads.make(partial(Incoming, self._incoming), Incoming.discard)
            async with aclosing(self.gathering.gather(pieces)) as gathered:
                async for piece in gathered:
                    total = incoming.size + len(piece)
                    if total > self.config.max_bytes:
                        raise FileRefused("too_large", f"the file has more than {self.config.max_bytes} bytes")
                    if total > reserved:
                        reserved += await self._reserve(user, total - reserved)
                    await self._threads.run(incoming.write, piece)
                    del piece  # see `gather`
            keeping = asyncio.ensure_future(self._keep(incoming, user, name, kind))
            try:
                return await asyncio.shield(keeping)
            except asyncio.CancelledError:
                await asyncio.wait([keeping])  # what is half done is done, or leaves nothing
                raise
        finally:
            self._coming[user] = self._coming.get(user, 0) - reserved
            if not self._coming[user]:
                del self._coming[user]
            if incoming is not None:
                await asyncio.shield(self._threads.run(incoming.discard))

    async def _reserve(self, user: str, size: int) -> int:
        quota = self.config.quota_bytes
        if quota:
            used = await self._threads.run(self._table.used, user)
            if used.bytes + self._coming.get(user, 0) + size > quota:
                raise FileRefused(
                    "quota", f"your files may have {quota} bytes together; recall messages with files you don't need"
                )
            most = max(MOST_FILES, quota // LEAST_BYTES)
            if used.files >= most:
                raise FileRefused("quota", f"you may have {most} files; recall messages with files you don't need")
        self._coming[user] = self._coming.get(user, 0) + size
        return size

    async def _keep(self, incoming: Incoming, user: str, name: str, kind: str) -> Stored:
        def keep() -> Stored:
            digest = incoming.finish()
            stored = Stored(secrets.token_urlsafe(16), user, name, kind, incoming.size, digest, self._now())
            self._blobs.put(stored.id, incoming.path)
            try:
                self._table.add(stored)
            except StoreError:
                self._blobs.remove(stored.id)
                raise
            return stored

        found: Stored = await self._threads.run(keep)
        return found

    # Downloads

    async def readable(self, user: str, file: str, took: Callable[[float], None] = lambda _: None) -> Stored | None:
        """The file, where this user may read it now; `took` is told of a thread's seconds that it took to find that out.

        Raises `Refusal` while the store can't be asked, and `StoreError`.
        """

        def ask(engine: Readable) -> tuple[bool, float]:
            began = time.thread_time()
            upload = engine.state.upload(file)
            may = upload is not None and may_read_file(engine.state, user, upload)
            return may, time.thread_time() - began

        assert self._ledger is not None
        may, seconds = await self._ledger.call(ask, user)
        took(seconds)
        if not may:
            return None
        found: Stored | None = await self._threads.run(self._table.get, file)
        return found

    async def open(self, stored: Stored, start: int, size: int) -> Content:
        """`size` bytes of the file from `start` on. Raises `FileNotFoundError` where its content is lost, `OSError`."""
        opening = partial(self._blobs.open, stored.id, start, size)
        return Content(await self._threads.make(opening, lambda stream: stream.close()), size, self._threads)

    # What leaves

    async def forget_user(self, user: str) -> None:
        """The user's uploads that no message carries are gone."""
        after = (-1, "")
        while owned := await self._threads.run(self._table.owned, user, after, SLICE):
            await self._release([file for _, file in owned], user)
            after = owned[-1]

    def retained(self) -> None:
        """Retention has taken messages: the next sweep looks at all files."""
        self._all = True

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except (OSError, StoreError, Refusal) as error:
                log.warning("files that nobody carries could not be removed: %s", error)

    async def sweep(self) -> None:
        """What no message carries any more is gone: all of it where retention took messages, else what one turn finds."""
        released = self.uploads.take_released()
        whole, self._all = self._all or released is None, False
        known = sorted(released or ())
        for first in range(0, len(known), SLICE):
            await self._release(known[first : first + SLICE])
        for file in known:
            await self._forget_carriers(file)
        while aged := await self._threads.run(self._table.aged, self._aged, self._now() - UNCARRIED_S * 1000, AGED):
            await self._release([file.id for file in aged if not file.is_carried])
            self._aged = aged[-1]
            await asyncio.sleep(BREATH_S)
        if whole:
            self._position = ""
        slices = 0
        while whole or slices < SLICES:
            part = await self._threads.run(self._table.carried_after, self._position, SLICE)
            self._position = part[-1] if len(part) == SLICE else ""
            await self._release(part)
            if not self._position:
                break
            slices += 1
            await asyncio.sleep(BREATH_S)
        if time.monotonic() >= self._orphans_due:
            self._orphans_due = time.monotonic() + ORPHANS_S
            await self._threads.run(self._remove_orphans)

    async def _release(self, files: list[str], owner: str | None = None) -> None:
        """Those that nobody carries are gone: uploads of `owner` at once, others when they were carried or had their time."""
        oldest = self._now() - UNCARRIED_S * 1000

        def unused(state: Readable | Store, some: list[str]) -> tuple[list[str], list[str]]:
            """Those of them that may go, as far as one look goes, and those that it did not come to."""
            found, looks = list[str](), 0
            for number, file in enumerate(some):
                if looks >= LOOKS:
                    return found, some[number:]
                upload = state.state.upload(file)
                looks += 1 if upload is None else 1 + len(upload.carriers)
                if upload is None or is_carried(state.state, upload):
                    continue
                if upload.carriers or upload.owner == owner or _created(self._table, file) < oldest:
                    found.append(file)
            return found, []

        def take(store: Store, some: list[str]) -> tuple[list[str], list[str]]:
            gone, rest = unused(store, some)
            self._table.remove(gone)
            return gone, rest

        assert self._ledger is not None
        while files:
            going, files = await self._ledger.call(partial(unused, some=files))
            while going:
                gone, going = await self._ledger.decide(partial(take, some=going))
                for file in gone:
                    await self._threads.run(self._blobs.remove, file)
                    log.info("a file that nobody carries any more was removed", extra={"file": file})

    async def _forget_carriers(self, file: str) -> None:
        """Messages that carry it no more are not looked at when somebody asks for it."""
        upload: Upload | None = await self._threads.run(self._table.upload, file)
        carriers = [] if upload is None else await self._threads.run(sorted, upload.carriers)

        def over(state: Readable, some: list[tuple[str, int]]) -> list[tuple[str, int]]:
            return [one for one in some if is_over(state.state, file, *one)]

        assert self._ledger is not None
        for first in range(0, len(carriers), LOOKS):
            if gone := await self._ledger.call(partial(over, some=carriers[first : first + LOOKS])):
                await self._threads.run(self._table.carry_no_more, file, gone)

    def _remove_orphans(self) -> None:
        newest = time.time() - ORPHAN_S
        for file, came in self._blobs.all():
            if came < newest and self._table.get(file) is None:
                self._blobs.remove(file)


def open_files(config: FilesConfig, data_dir: Path, place: Place | None = None, memory_mb: int = USUAL_MB) -> Files:
    """The files of this server; `place` has its tables, else `data_dir`. Uploads under way take a share of `memory_mb`.

    Raises `MqttImError` where they can't be kept so. Where the tables are shared with other servers and the contents are not, no
    uploads are taken.
    """
    files = Files(config, data_dir, blobs_of(config, data_dir), FileTable(place or data_dir), Bounds(memory_mb))
    files.shared = place is not None and place.shared
    if files.shared and not config.url:
        files.refusing = "uploads need files.url, since every node must have the files"
        log.warning("no uploads are taken: they need files.url, since every node must have the files")
    return files


def blobs_of(config: FilesConfig, data_dir: Path) -> Blobs:
    """Where contents are kept. Raises `MqttImError`."""
    if not config.url:
        return Folder(data_dir / FOLDER)
    parts = urlsplit(config.url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        if folder.exists() and not folder.is_dir():
            raise MqttImError("files", f"files.url: {folder} is no folder")
        return Folder(folder)
    from mqtt_im.files.s3 import S3

    return S3(config.url, config.endpoint)


def clean_name(name: str) -> str:
    """The name without path separators and control characters. Raises `FileRefused` where it is too long."""
    if len(name.encode()) > MAX_NAME_BYTES:
        raise FileRefused("bad_field", f"name: at most {MAX_NAME_BYTES} bytes of UTF-8")
    return "".join("_" if char in "/\\" or not char.isprintable() else char for char in name) or "file"


def _created(table: FileTable, file: str) -> int:
    found = table.get(file)
    return found.created if found is not None else 0
