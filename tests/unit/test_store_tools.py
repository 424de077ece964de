"""`store check` finds what is wrong, `store backup` and `restore` keep everything, a folder has one server."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from mqtt_im.accounts.table import Accounts
from mqtt_im.core.rules import Who
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.protocol.requests import GroupCreate, React, Request, Send
from mqtt_im.store.folder import FolderLock
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.backup import backup, restore
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.opening import open_ledger

BODY = msgspec.Raw(b'"hello"')


async def _fill(data_dir: Path) -> None:
    ledger = open_ledger(data_dir)
    await ledger.start()

    async def done(make: Callable[[Callable[[Job], None]], Job]) -> None:
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        ledger.submit(make(future.set_result))
        assert (await future).refusal is None

    async def request(user: str, what: Request) -> None:
        await done(lambda notify: RequestJob(Who(user, "phone", 0), what, notify))

    await done(lambda notify: AttachJob(Who("bob", "phone", 0), notify))
    for number in range(5):
        await request("alice", Send(id=f"a{number}", to="bob", body=BODY))
    await request("alice", Send(id="key", to="bob", body=BODY, key="k", mentions=["bob"]))
    await request("carol", GroupCreate(id="g", group="#ops", members=["alice", "bob"]))
    await request("bob", Send(id="b", to="#ops", body=BODY))
    await request("alice", React(id="r", conv="#ops", seq=2, emoji="+"))
    await ledger.stop()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    asyncio.run(_fill(folder))
    return folder


def execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(statement).rowcount > 0


def test_a_good_store_has_no_problems(data_dir: Path) -> None:
    report = check(data_dir)
    assert report.problems == []
    assert (report.messages, report.conversations, report.inboxes) == (8, 2, 3)
    assert report.items == 6 * 2 + 3 + 3 + 3


@pytest.mark.parametrize(
    ("file", "statement", "problem"),
    [
        ("mqtt-im.db", "DELETE FROM log WHERE lsn = 3", "log: row 4 follows row 2"),
        (
            "mqtt-im.db",
            "UPDATE log SET rec = (SELECT rec FROM log WHERE lsn = 3) WHERE lsn = 4",
            "seq 2 of alice:bob: 3 was next",
        ),
        (
            "mqtt-im.db",
            "UPDATE log SET rec = (SELECT rec FROM log WHERE lsn = 3) WHERE lsn = 4",
            "id 'a1' of alice was used by row 3",
        ),
        ("projection.db", "UPDATE item SET pos = 99 WHERE pos = 3", "table item has"),
        ("projection.db", "DELETE FROM request", "table request has None"),
        ("projection.db", "UPDATE device SET cursor = 4", "table device has"),
        ("projection.db", "UPDATE conv SET head = 1", "table conv has"),
        ("projection.db", "UPDATE meta SET value = '99' WHERE key = 'lsn'", "has row 99 of a log that ends at"),
    ],
)
def test_a_broken_store_is_found(data_dir: Path, file: str, statement: str, problem: str) -> None:
    execute(data_dir / file, statement)
    assert any(problem in found for found in check(data_dir).problems)


def test_a_corrupt_file_is_a_store_error_or_a_problem(data_dir: Path) -> None:
    file = data_dir / "mqtt-im.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.read_bytes())
    content[4096 * 2 : 4096 * 2 + 1024] = b"\xff" * 1024
    file.write_bytes(content)
    try:
        problems = check(data_dir).problems
    except StoreError as error:
        problems = [error.message]
    assert problems


def test_lost_projections_are_no_problem(data_dir: Path) -> None:
    for file in data_dir.glob("projection.db*"):
        file.unlink()
    assert check(data_dir).problems == []


def test_a_backup_restores_messages_and_accounts_under_a_new_epoch(data_dir: Path, tmp_path: Path) -> None:
    accounts = Accounts(data_dir)
    accounts.add("alice", "old secret")
    accounts.add("bob", "old secret")
    accounts.remove("bob")
    backup(data_dir, tmp_path / "backup")
    accounts.close()
    epochs = {epoch(data_dir / "mqtt-im.db"), epoch(tmp_path / "backup")}
    before = check(data_dir)
    for number in range(2):
        folder = tmp_path / f"restored{number}"
        restore(tmp_path / "backup", folder)
        assert check(folder) == before
        restored = Accounts(folder)
        assert [account.name for account in restored.all()] == ["alice"]
        assert restored.exists("alice")
        restored.add("bob", "new secret")
        restored.close()
        epochs.add(epoch(folder / "mqtt-im.db"))
        assert sorted(file.name for file in folder.iterdir()) == ["accounts.db", "lock", "mqtt-im.db"]
    assert len(epochs) == 4


def epoch(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])


def test_backup_and_restore_overwrite_nothing(data_dir: Path, tmp_path: Path) -> None:
    backup(data_dir, tmp_path / "backup")
    with pytest.raises(MqttImError, match="exists already"):
        backup(data_dir, tmp_path / "backup")
    with pytest.raises(MqttImError, match="exists already"):
        restore(tmp_path / "backup", data_dir)
    assert check(data_dir).problems == []


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 1000)
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE t (x)")
    for name in ("text", "other", "missing"):
        with pytest.raises(StoreError):
            restore(tmp_path / name, tmp_path / "data")
        assert not (tmp_path / "data" / "mqtt-im.db").exists()


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "data"), FolderLock(tmp_path / "data")
    assert not FolderLock.is_held(tmp_path / "data")
    first.take()
    assert FolderLock.is_held(tmp_path / "data")
    with pytest.raises(StoreError, match="in use by another server"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_a_folder_that_can_t_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be used"):
        FolderLock(tmp_path / "file" / "data").take()


def test_what_another_store_left_is_not_taken_for_this_one(data_dir: Path, tmp_path: Path) -> None:
    """A write-ahead file of another log would be applied to the restored one; sessions and webhooks are of another epoch."""
    backup(data_dir, tmp_path / "backup")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (
        "mqtt-im.db-wal",
        "mqtt-im.db-shm",
        "projection.db",
        "broker.db",
        "hooks.db-wal",
        "search.db",
        "accounts.db-wal",
    ):
        (folder / name).write_bytes(b"of another store")
    for name in ("notes.txt", "backup-monday.db"):
        (folder / name).write_text("mine")
    left = Accounts(folder)
    left.add("carol", "of another store")
    left.close()
    aside = restore(tmp_path / "backup", folder)
    assert aside is not None and (aside / "mqtt-im.db-wal").read_bytes() == b"of another store"
    assert check(folder) == check(data_dir)
    assert (folder / "notes.txt").exists() and (folder / "backup-monday.db").exists()
    assert not (folder / "broker.db").exists()
    kept, restored = Accounts(aside), Accounts(folder)
    assert kept.exists("carol") and not restored.exists("carol")
    kept.close()
    restored.close()


@pytest.mark.parametrize("after", range(6))
def test_a_restore_that_is_killed_leaves_nothing_that_starts(data_dir: Path, tmp_path: Path, after: int) -> None:
    accounts = Accounts(data_dir)
    accounts.add("alice", "a long secret")
    accounts.close()
    backup(data_dir, tmp_path / "backup")
    folder = tmp_path / "folder"
    left = Accounts(folder)
    left.add("carol", "of another store")
    left.close()
    rename, count = Path.rename, 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return rename(self, target)

    with patch.object(Path, "rename", killed), contextlib.suppress(KeyboardInterrupt):
        restore(tmp_path / "backup", folder)
    if count > after:
        with pytest.raises(StoreError, match="not finished"):
            FolderLock(folder).take()
        restore(tmp_path / "backup", folder)
    assert check(folder) == check(data_dir)
    restored, kept = Accounts(folder), [Accounts(aside) for aside in folder.glob("before-restore-*")]
    assert [account.name for account in restored.all()] == ["alice"]
    assert any(aside.exists("carol") for aside in kept)
    for each in (restored, *kept):
        each.close()
    FolderLock(folder).take()


def test_nothing_is_restored_under_a_running_server(data_dir: Path, tmp_path: Path) -> None:
    backup(data_dir, tmp_path / "backup")
    lock = FolderLock(tmp_path / "folder")
    lock.take()
    with patch("mqtt_im.store.folder.PATIENCE_S", 0.0), pytest.raises(StoreError, match="in use"):
        restore(tmp_path / "backup", tmp_path / "folder")
    lock.release()
