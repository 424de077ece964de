"""A look that meets a commit each time is put off: the commit needs no gate, so that is no mistake."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from mqtt_im.clock import Times
from mqtt_im.store.sqlite.view import ReadState
from tests.support.store import SqliteStore


def test_what_was_committed_while_it_was_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    reading = store.engine.reading()
    told: list[bool] = []
    now = Times(1_700_000_000_000, 0, 0)
    with patch.object(ReadState, "changed_since", lambda *_: store.engine.gate.committed or 1):
        store.engine.gate.commit(1)
        assert not reading.run(lambda _: None, lambda: told.append(True), now) and not told
        reading.wait(60.0)  # it is on disk already, so this returns
    assert reading.run(lambda _: None, lambda: told.append(True), now) and told
    reading.close()
    store.close()
