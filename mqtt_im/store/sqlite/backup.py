"""Online backup into one file, and its way back into a data_dir.

The file is an SQLite database that holds the log, which is all that messages are, and the accounts' tables. It carries an
epoch of its own, and so does each restored store: clients of a restored server then know that it may lack what they have
seen, and start over (PROTOCOL §3). MQTT sessions are not in it; clients subscribe anew.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from mqtt_im.accounts import journal as accounts
from mqtt_im.disk import is_full, reading, reason, sync
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.store.folder import RESTORING, FolderLock
from mqtt_im.store.sqlite.tables.files import LOG_FILE, new_epoch
from mqtt_im.store.sqlite.tables.unchanging import readable

_OF_A_STORE: Final = re.compile(
    r"(mqtt-im|projection|accounts|broker|hooks|webpush|search|files)\.(db|alive)(\.[a-z]+)?(-wal|-shm|-journal)?\Z"
)
_ACCOUNT_TABLES = ("account", "token", "change", "erasing", "leaving")


def backup(data_dir: Path, target: Path) -> None:
    """`target` holds the store as it was at one moment; a server on `data_dir` goes on meanwhile.

    Everything that was acknowledged before the call is in it. Code `exists` where there is such a file already; where it
    fails, nothing is left of it. Raises `StoreError`.
    """
    source = data_dir / LOG_FILE
    if not source.is_file():
        raise StoreError(f"{source}: there is no such file; has a server run on this data_dir?")
    if target.exists():
        raise MqttImError("exists", f"{target} exists already")
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with readable(data_dir) as unchanging:
            _copy(source, partial, unchanging)
            with closing(sqlite3.connect(f"{partial.absolute().as_uri()}?mode=rw", uri=True)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
                if (data_dir / accounts.FILE_NAME).is_file():
                    _add_accounts(connection, data_dir / accounts.FILE_NAME, unchanging)
                _renew_epoch(connection)
        sync(partial)
        os.link(partial, target)  # fails where somebody has made it meanwhile
    except FileExistsError:
        raise MqttImError("exists", f"{target} exists already") from None
    except (sqlite3.Error, OSError) as error:
        raise StoreError(reason(target, error)) from error
    finally:
        partial.unlink(missing_ok=True)
    sync(target.parent)


def restore(backup_file: Path, data_dir: Path) -> Path | None:
    """`data_dir`, which holds no log, holds what was backed up, or is as it was; a restore that was killed is to be run again.

    What another store has left there (accounts, write-ahead files, sessions, indexes, webhooks) would be taken for this one's: it
    is moved into a folder of its own, which is returned. Code `exists` where there is a log; raises `StoreError`.
    """
    if not backup_file.is_file():
        raise StoreError(f"{backup_file}: there is no such file")
    try:
        return put_in_place(data_dir, lambda folder: _make(backup_file, folder))
    except (sqlite3.Error, OSError) as error:
        raise StoreError(reason(data_dir / LOG_FILE if is_full(data_dir) else backup_file, error)) from error


def is_free(data_dir: Path) -> bool:
    """Whether the folder has nothing of a store, but for what a restore or a copy has left there that was killed."""
    if not data_dir.exists() or (data_dir / RESTORING).exists():
        return True
    return not any(_OF_A_STORE.match(file.name) for file in data_dir.iterdir())


def put_in_place(data_dir: Path, make: Callable[[Path], None]) -> Path | None:
    """`data_dir`, which holds no log, holds the files that `make` has put into the folder it is given, or is as it was.

    See `restore`. No server runs on it meanwhile, nor starts before it is run again where it was killed.
    """
    lock = FolderLock(data_dir)
    lock.take(restoring=True)
    try:
        return _put_in_place(data_dir, make)
    finally:
        lock.release()


def _put_in_place(data_dir: Path, make: Callable[[Path], None]) -> Path | None:
    work = data_dir / RESTORING
    made, left = work / "made", work / "left"
    if work.exists():
        # A restore was killed. There was no log before, and no server starts meanwhile: one that is here was put here by it.
        (data_dir / LOG_FILE).unlink(missing_ok=True)
    elif (data_dir / LOG_FILE).exists():
        raise MqttImError("exists", f"{data_dir / LOG_FILE} exists already; restore into a data_dir without a store")
    work.mkdir(mode=0o700, exist_ok=True)
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        make(made)
        _settle(made)
    except BaseException:
        if not left.exists():  # else the folder is neither as it was nor restored
            shutil.rmtree(work)
        raise
    left.mkdir(mode=0o700, exist_ok=True)
    for file in sorted(data_dir.iterdir()):
        if not file.is_file() or not _OF_A_STORE.match(file.name):
            continue
        if (left / file.name).exists():  # this one was put here by a restore that was killed
            file.unlink()
        else:
            file.rename(left / file.name)
    for file in sorted(made.iterdir()):
        file.rename(data_dir / file.name)
    sync(data_dir)
    made.rmdir()
    aside = _hand_back(left, data_dir)
    work.rmdir()
    sync(data_dir)
    return aside


def _hand_back(left: Path, data_dir: Path) -> Path | None:
    """What another store had left is in a folder of its own, which is returned; None where there was nothing."""
    if not any(left.iterdir()):
        left.rmdir()
        return None
    aside = Path(tempfile.mkdtemp(prefix="before-restore-", dir=data_dir))
    left.rename(aside)
    return aside


def _make(backup_file: Path, folder: Path) -> None:
    """The folder holds the store's files."""
    log = folder / LOG_FILE
    os.close(os.open(log, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    _copy(backup_file, log)
    with closing(sqlite3.connect(log)) as connection:
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise StoreError(f"{backup_file}: is damaged")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"log", "meta"} <= tables:
            raise StoreError(f"{backup_file}: is no backup of this server")
        if "account" in tables:
            _take_accounts(connection, folder, tables)
        _renew_epoch(connection)


def _settle(folder: Path) -> None:
    """What was put into the folder is on disk."""
    for file in folder.iterdir():
        if file.name.endswith(("-wal", "-shm")):
            raise StoreError(f"{file}: could not be written to its end")
        sync(file)
    sync(folder)


def _copy(source: Path, target: Path, unchanging: bool = False) -> None:
    """Copy a database as one snapshot, what still stands in its write-ahead file included."""
    with (
        closing(sqlite3.connect(reading(source, unchanging), uri=True, timeout=10)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)


def _add_accounts(connection: sqlite3.Connection, file: Path, unchanging: bool) -> None:
    connection.execute("ATTACH ? AS accounts", (reading(file, unchanging),))
    tables = {name for (name,) in connection.execute("SELECT name FROM accounts.sqlite_master WHERE type = 'table'")}
    with connection:
        for table in tables & set(_ACCOUNT_TABLES):
            connection.execute(f'CREATE TABLE main."{table}" AS SELECT * FROM accounts."{table}"')  # noqa: S608 - our own names
    connection.execute("DETACH accounts")


def _take_accounts(connection: sqlite3.Connection, data_dir: Path, tables: set[str]) -> None:
    accounts.Journal(data_dir).close()  # makes the tables, with their indexes
    connection.execute("ATTACH ? AS accounts", (str(data_dir / accounts.FILE_NAME),))
    with connection:
        for table in tables & set(_ACCOUNT_TABLES):
            # An older backup lacks columns, which then have their defaults.
            columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f'PRAGMA main.table_info("{table}")'))
            connection.execute(f'INSERT INTO accounts."{table}" ({columns}) SELECT {columns} FROM main."{table}"')  # noqa: S608 - our own names
            connection.execute(f'DROP TABLE main."{table}"')
    connection.execute("DETACH accounts")


def _renew_epoch(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (new_epoch(),))
