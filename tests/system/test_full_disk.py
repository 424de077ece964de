"""docs/operations.md: on a full disk reading goes on while writing is refused, and a server starts there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.store.sqlite.check import check
from mqtt_im.testing import ServerProcess
from tests.support.im import direct
from tests.system.conftest import Clients


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
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


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("reserve", [True, False])
def test_a_server_starts_on_a_full_disk_and_reading_goes_on(small: Path, how: str, reserve: bool) -> None:
    if how == "stop" and not reserve:
        pytest.skip("SQLite has no room for what it keeps beside an open database")
    with ServerProcess({"data_dir": str(small / "data")}) as server:
        clients = Clients(server)
        alice = clients.online("alice")
        for number in range(50):
            alice.say("bob", number)
        clients.close()
        server.stop() if how == "stop" else server.kill()
        if not reserve:
            os.unlink(small / "data" / "reserve")
        filled = fill(small)
        server.start()
        bob = clients.online("bob")
        bob.received(50)
        assert [item["body"] for item in bob.must("history", conv=direct("alice", "bob"))["items"]] == list(range(50))
        filled.unlink()
        assert clients.online("alice").say("bob", "again")["seq"] == 51
        clients.close()
        server.stop()
        assert check(small / "data").problems == []
        assert (small / "data" / "reserve").exists()
