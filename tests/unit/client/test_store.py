"""The client's store on disk: what it must not tell."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mqtt_im.client.store.interface import Row
from mqtt_im.client.store.sqlite import SqliteStore


def test_no_log_says_what_people_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("peewee").setLevel(logging.DEBUG)
    store = SqliteStore(tmp_path / "a.db", "full")
    store.open("alice", "pc")
    row = Row(1, "c1", "send", {"to": "bob"}, "json", b"the secret", 1, False, 0.0, 0.0, "", None, None)
    with store.transaction():
        store.add(row)
        store.replace(row)
        store.tried([1])
    store.close()
    again = SqliteStore(tmp_path / "a.db", "full")
    assert again.open("alice", None).rows[0].raw == b"the secret"
    again.close()
    assert "secret" not in caplog.text
