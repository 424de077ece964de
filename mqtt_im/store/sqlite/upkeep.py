"""When retention runs: every hour where it is configured, and when `mqtt-im store compact` asks.

The command works beside a running server: it leaves a row in the log's file, where the server finds it within a second, and the
answer comes the same way. Without a server the command does the work itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import peewee

from mqtt_im.disk import reason
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.folder import FolderLock
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.policy import Policy, Removed

from .opening import open_ledger
from .tables.files import LOG_FILE, open_log
from .tables.models import LogMeta

POLL_S: Final = 0.5
FIRST_S: Final = 300.0
EVERY_S: Final = 3600.0
SHARE: Final = 20
"""A pass takes at most this part of the time: after a long one it is longer until the next."""
PATIENCE_S: Final = 15.0
"""So long a server may take to notice a request, and so often who asked sees meanwhile whether an answer can be written."""
_ERRORS: Final = (sqlite3.Error, peewee.PeeweeException)
_ASKED: Final = "compact"
_ANSWERED: Final = "compacted"
_WAITED: Final = "compact_waited"

logger = logging.getLogger(__name__)


class Answer(msgspec.Struct):
    """What a server says to the request named `token`."""

    token: str
    state: Literal["running", "done", "failed"]
    removed: Removed | None = None
    error: str = ""


class Upkeep:
    """The running server's part, on its event loop."""

    def __init__(self, ledger: Ledger, data_dir: Path, policy: Policy, note_connected: Callable[[], None] = lambda: None) -> None:
        """`note_connected` is called before each pass: devices that are connected are not to be taken for long unseen."""
        self._ledger = ledger
        self._data_dir = data_dir
        self._policy = policy
        self._note_connected = note_connected

    async def run(self) -> None:
        """Never returns; to be cancelled before the ledger stops. Raises `StoreError` where the log's file can't be opened."""
        db = open_log(self._data_dir, readonly=True)
        try:
            await self._serve(db)
        finally:
            db.close()

    async def _serve(self, db: peewee.SqliteDatabase) -> None:
        due = time.monotonic() + FIRST_S
        answer: Answer | None = None
        while True:
            await asyncio.sleep(POLL_S)
            token = _noted(db, _ASKED)
            if token and answer is not None and answer.token == token:
                await self._say(answer, logging.DEBUG)  # which could not be written before, and was logged
            elif token:
                answer = await self._answer(token)
            elif self._policy.removes and time.monotonic() >= due:
                began = time.monotonic()
                try:
                    await self._pass()
                except StoreError as error:
                    logger.error("retention: %s", error.message)
                now = time.monotonic()
                due = now + max(EVERY_S, SHARE * (now - began))

    async def _pass(self) -> Removed:
        self._note_connected()
        removed = await self._ledger.compact(self._policy)
        logger.info("retention: %d messages are gone, and %d rows of the log", removed.messages, removed.rows)
        return removed

    async def _answer(self, token: str) -> Answer:
        await self._say(Answer(token, "running"))
        try:
            answer = Answer(token, "done", await self._pass())
        except StoreError as error:
            answer = Answer(token, "failed", error=error.message)
        await self._say(answer)
        return answer

    async def _say(self, answer: Answer, level: int = logging.ERROR) -> None:
        text = msgspec.json.encode(answer).decode()
        notes = {_ANSWERED: text, **({} if answer.state == "running" else {_ASKED: ""})}
        try:
            # Not on the loop: it waits for the ledger's own transaction.
            await asyncio.get_running_loop().run_in_executor(None, _write, self._data_dir, notes)
        except StoreError as error:
            logger.log(level, "retention: a request to compact can't be answered: %s", error.message)


def compact(
    data_dir: Path,
    policy: Policy,
    synchronous: str = "full",
    sleep: Callable[[float], None] = time.sleep,
    follow: Callable[[Path, str], None] = lambda *_: None,
) -> Removed:
    """Retention has run, in the server that runs on `data_dir`, by that one's policy, or else here. Raises `StoreError`.

    Where it has run here, `follow` is called with the folder and the store's epoch, so that what was made of the log forgets
    too what is gone.
    """
    if not (data_dir / LOG_FILE).is_file():
        raise StoreError(f"{data_dir / LOG_FILE}: there is no such file; has a server run on this data_dir?")
    if FolderLock.is_held(data_dir):
        return _ask(data_dir, sleep)
    lock = FolderLock(data_dir)
    lock.take()
    try:
        return asyncio.run(_alone(data_dir, policy, synchronous, follow))
    finally:
        lock.release()


async def _alone(data_dir: Path, policy: Policy, synchronous: str, follow: Callable[[Path, str], None]) -> Removed:
    ledger = open_ledger(data_dir, synchronous=synchronous)
    await ledger.start()
    try:
        removed = await ledger.compact(policy)
        await asyncio.get_running_loop().run_in_executor(None, follow, data_dir, ledger.epoch)
        return removed
    finally:
        await ledger.stop()


def _ask(data_dir: Path, sleep: Callable[[float], None]) -> Removed:
    token = secrets.token_hex(8)
    db = open_log(data_dir, readonly=True)  # first, since a server of an older version must keep its file as it is
    try:
        _write(data_dir, {_ASKED: token})
        patience = PATIENCE_S
        while FolderLock.is_held(data_dir):
            sleep(POLL_S / 5)
            answer = _answered(db, token)
            if answer is not None and answer.state == "failed":
                raise StoreError(answer.error)
            if answer is not None and answer.removed is not None:
                return answer.removed
            patience -= POLL_S / 5
            if patience < 0:
                # On a full disk the server's answer is not written, nor is this, which tells why.
                _write(data_dir, {_WAITED: token} if answer else {_ASKED: ""})
                if answer is None:
                    raise StoreError(f"the server on {data_dir} does not answer")
                patience = PATIENCE_S
    finally:
        db.close()
    raise StoreError(f"the server on {data_dir} has stopped meanwhile; ask again")


def _answered(db: peewee.SqliteDatabase, token: str) -> Answer | None:
    text = _noted(db, _ANSWERED)
    answer = msgspec.json.decode(text, type=Answer) if text else None
    return answer if answer is not None and answer.token == token else None


def _noted(db: peewee.SqliteDatabase, key: str) -> str:
    try:
        rows = list(LogMeta.select(LogMeta.value).where(LogMeta.key == key).tuples().execute(db))
    except _ERRORS as error:
        logger.warning("retention: requests can't be read: %s", error)
        return ""
    return str(rows[0][0]) if rows else ""


def _write(data_dir: Path, notes: dict[str, str]) -> None:
    db = open_log(data_dir)
    try:
        with db.atomic("IMMEDIATE"):
            for key, value in notes.items():
                LogMeta.insert(key=key, value=value).on_conflict_replace().execute(db)
    except _ERRORS as error:
        raise StoreError(reason(data_dir / LOG_FILE, error)) from error
    finally:
        db.close()
