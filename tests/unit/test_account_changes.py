"""Changes of accounts, where no whole server is needed to see what they mean."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest

from mqtt_im.account_changes import AccountChanges
from mqtt_im.metrics import Metrics
from mqtt_im.protocol.errors import StoreError


class Unreadable:
    """Accounts on a broken disk."""

    def take_changes(self) -> Any:
        raise StoreError("disk I/O error")


def test_accounts_that_can_not_be_read_are_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """They are looked at four times a second, and with each change."""
    metrics, nobody = Metrics(), cast(Any, None)
    changes = AccountChanges(cast(Any, Unreadable()), nobody, nobody, partial(metrics.count, "log_lines_suppressed"))
    for _ in range(20):
        changes.act()
    (line,) = caplog.records
    assert (line.levelname, line.message, line.__dict__["reason"]) == ("ERROR", "the accounts can't be read", "disk I/O error")
    assert b"mqtt_im_log_lines_suppressed_total 19.0" in metrics.render()
