"""The composition, where no whole server is needed to see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mqtt_im.app import Server
from mqtt_im.config import Config
from mqtt_im.protocol.errors import StoreError


class Unreadable:
    """Accounts on a broken disk."""

    def take_changes(self) -> Any:
        raise StoreError("disk I/O error")


def test_accounts_that_can_not_be_read_are_said_once_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are looked at four times a second, and with each change."""
    server = Server(Config(data_dir=str(tmp_path)))
    accounts: Any = Unreadable()
    eraser: Any = None
    for _ in range(20):
        server._act(accounts, eraser)
    (line,) = caplog.records
    assert (line.levelname, line.message, line.__dict__["reason"]) == ("ERROR", "the accounts can't be read", "disk I/O error")
    assert b"mqtt_im_log_lines_suppressed_total 19.0" in server.metrics.render()
