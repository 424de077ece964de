"""Accounts: what one process changes, another one sees."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqtt_im.accounts.models import Change
from mqtt_im.accounts.passwords import verify_password
from mqtt_im.accounts.table import Accounts
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.tables import Place


@pytest.fixture
def server(new_place: Callable[[], Place]) -> Accounts:
    return Accounts(new_place())


@pytest.fixture
def command(new_place: Callable[[], Place], server: Accounts) -> Accounts:
    return Accounts(new_place())


def test_a_new_account_is_seen_at_once(server: Accounts, command: Accounts) -> None:
    assert not server.exists("alice")
    assert server.version("alice") is None
    command.add("alice", "old secret")
    assert server.exists("alice")
    credentials = server.credentials("alice")
    assert credentials is not None
    assert verify_password(b"old secret", credentials.password_hash)
    assert not verify_password(b"Secret", credentials.password_hash)
    assert server.take_changes() == [Change("alice", "added")]
    assert server.take_changes() == []


def test_a_new_password_has_a_new_version_and_no_tokens(server: Accounts, command: Accounts) -> None:
    command.add("alice", "very old")
    token = command.add_token("alice")
    before = server.credentials("alice")
    assert before is not None
    found = server.token(token.encode())
    assert found is not None and found.user == "alice"
    command.set_password("alice", "new secret")
    after = server.credentials("alice")
    assert after is not None
    assert server.token(token.encode()) is None
    assert after.version != before.version
    assert [change.what for change in server.take_changes()] == ["added", "token", "password"]


def test_a_removed_account_is_gone_with_its_tokens(server: Accounts, command: Accounts) -> None:
    command.add("alice", "xxxxxxxx")
    command.add_token("alice")
    version = server.version("alice")
    command.remove("alice")
    assert server.take_changes()[-1] == Change("alice", "removed")
    assert not server.exists("alice")
    assert server.credentials("alice") is None
    command.add("alice", "xxxxxxxx")
    again = server.credentials("alice")
    assert again is not None
    assert server.tokens("alice") == []
    assert again.version != version


def test_one_s_own_changes_are_seen_too(server: Accounts) -> None:
    server.add("alice", "xxxxxxxx")
    assert server.exists("alice")
    server.set_password("alice", "yyyyyyyy")
    server.remove("alice")
    assert not server.exists("alice")
    assert [change.what for change in server.take_changes()] == ["added", "password", "removed"]


def test_a_restart_finds_the_accounts_and_no_changes(new_place: Callable[[], Place], server: Accounts) -> None:
    for name in ("bob", "alice", "carol"):
        server.add(name, "xxxxxxxx")
    server.add_token("bob")
    server.remove("carol")
    server.close()
    again = Accounts(new_place())
    assert [(account.name, account.tokens) for account in again.all()] == [("alice", 0), ("bob", 1)]
    assert again.exists("alice")
    assert not again.exists("carol")
    assert again.take_changes() == []


@pytest.mark.parametrize("name", ["", "a b", "a:b", "#ops", ".", "..", "é", "x" * 65])
def test_bad_names(name: str, server: Accounts) -> None:
    with pytest.raises(MqttImError) as caught:
        server.add(name, "xxxxxxxx")
    assert caught.value.code == "name"


@pytest.mark.parametrize("password", ["", "x" * 7, "ß" * 7, "x" * 1025])
def test_bad_passwords(password: str, server: Accounts) -> None:
    with pytest.raises(MqttImError) as caught:
        server.add("alice", password)
    assert caught.value.code == "password"


def test_mistaken_names(server: Accounts) -> None:
    server.add("alice", "xxxxxxxx")
    with pytest.raises(MqttImError, match="there is a user alice already"):
        server.add("alice", "yyyyyyyy")
    for call in (lambda: server.remove("bob"), lambda: server.set_password("bob", "xxxxxxxx"), lambda: server.add_token("bob")):
        with pytest.raises(MqttImError, match="there is no user bob"):
            call()
    assert server.take_changes() == [Change("alice", "added")]


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    Accounts(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "accounts.db").stat().st_mode) == 0o600


def test_a_corrupt_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"accounts\.db"):
        Accounts(tmp_path)


def test_many_threads_may_ask(server: Accounts, command: Accounts) -> None:
    def ask() -> None:
        for number in range(200):
            server.exists(f"user{number % 3}")
            server.version("user1")

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        command.add("user1", "xxxxxxxx")
        for asked in asking:
            asked.result()
    assert server.exists("user1")


def test_the_file_stays_locked_for_other_processes(tmp_path: Path) -> None:
    """A process that is done with the file, and believes itself the last one, takes the write-ahead log away."""
    server = Accounts(tmp_path)
    script = "import sys; from mqtt_im.accounts.table import Accounts; Accounts(sys.argv[1]).add(sys.argv[2], 'x' * 8)"
    for name in ("alice", "bob"):
        subprocess.run([sys.executable, "-c", script, str(tmp_path), name], check=True)
        assert server.exists(name)
