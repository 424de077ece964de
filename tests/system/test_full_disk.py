"""docs/operations.md: on a full disk reading goes on while writing is refused, and a server starts there, given a little room."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.store.sqlite.check import check
from mqtt_im.testing import ServerProcess
from tests.support.im import direct
from tests.support.raw import eventually
from tests.system.conftest import Clients


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Nothing more can be written there."""
    file = folder / "fill"
    with file.open("wb", buffering=0) as target:
        try:
            while True:
                target.write(b"x" * 4096)
        except OSError:
            return file


def listens(server: ServerProcess) -> bool:
    """It lets clients in, whether it can write or not."""
    try:
        socket.create_connection((server.host, server.mqtt_port)).close()
    except OSError:
        return False
    return True


def stored(server: ServerProcess) -> None:
    """Alice has written 50 messages to bob."""
    clients = Clients(server)
    alice = clients.online("alice")
    for number in range(50):
        alice.say("bob", number)
    clients.close()


def works(server: ServerProcess) -> None:
    """Nothing was lost, and more can be written."""
    clients = Clients(server)
    assert clients.online("alice").say("bob", "again")["seq"] == 51
    bob = clients.online("bob")
    assert [item["body"] for item in bob.must("history", conv=direct("alice", "bob"))["items"]] == [*range(50), "again"]
    clients.close()
    server.stop()
    data_dir = Path(str(server.config["data_dir"]))
    assert check(data_dir).problems == []
    assert (data_dir / "reserve").exists()


@pytest.mark.parametrize(("how", "reserve"), [("stop", True), ("kill", True), ("kill", False)])
def test_a_server_starts_on_a_full_disk_and_reading_goes_on(small: Path, how: str, reserve: bool) -> None:
    with ServerProcess({"data_dir": str(small / "data")}) as server:
        stored(server)
        server.stop() if how == "stop" else server.kill()
        if not reserve:
            os.unlink(small / "data" / "reserve")
        filled = fill(small)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(server, "ready", lambda: listens(server))  # ready it may not be: perhaps nothing can be written
            server.start()
        clients = Clients(server)
        bob = clients.online("bob")
        bob.received(50)
        assert [item["body"] for item in bob.must("history", conv=direct("alice", "bob"))["items"]] == list(range(50))
        clients.close()
        filled.unlink()
        eventually(server.ready, "the store commits again")
        works(server)


def test_without_the_reserve_it_says_that_the_disk_is_full_and_starts_when_there_is_room(small: Path) -> None:
    with ServerProcess({"data_dir": str(small / "data")}) as server:
        stored(server)
        server.stop()
        os.unlink(small / "data" / "reserve")
        filled = fill(small)  # nor has SQLite left the files that it keeps beside an open database, as a killed server does
        ended = server.command("serve")
        assert ended.returncode == 1
        assert re.fullmatch(r"mqtt-im: \S+\.db: .*\(the disk is full\)\n", ended.stderr), ended.stderr
        filled.unlink()
        server.start()
        works(server)
