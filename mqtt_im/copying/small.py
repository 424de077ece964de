"""The small tables that are copied: accounts, tokens, sessions, queues, retained messages, wills, push subscriptions."""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

import peewee

from mqtt_im.accounts.models import MODELS as ACCOUNTS
from mqtt_im.hooks.subscriptions import SubscriptionRow
from mqtt_im.tables import Tables
from mqtt_im.tables.copying import Row, copy
from mqtt_im.transport.embedded.sessions.tables import MODELS as SESSIONS
from mqtt_im.transport.embedded.sessions.tables import WillRow

Models = tuple[type[peewee.Model], ...]

FILES: Final[dict[str, tuple[str, Models]]] = {
    "accounts": ("accounts", tuple(ACCOUNTS)),
    "sessions": ("broker", tuple(SESSIONS)),
    "webpush": ("webpush", (SubscriptionRow,)),
}
"""Their names in a database, with those in a folder and the tables."""


class HasSmall(Protocol):
    """A store with its small tables."""

    def small(self, name: str, *, made: bool = False) -> tuple[Tables, Models] | None:
        """Those of a name in `FILES`; None where there are none, and they are not to be `made`."""

    def push_key(self) -> bytes | None:
        """The key that push services know the server by, as PEM; None where there is none."""

    def keep_push_key(self, pem: bytes) -> None:
        """Browsers' subscriptions are good for this key from now on."""


def copy_small(source: HasSmall, target: HasSmall) -> None:
    """The target has the small tables of the source, and its key for Web Push. Raises what peewee raises."""
    now = int(time.time())

    def changed(row: Row) -> Row:
        if row.get("seen") == 0:
            row["seen"] = now  # whoever was there is not any more
        return row

    def of_will(row: Row) -> Row:
        """One of a node that was killed while its client was there is due after its delay."""
        delay: int = row.get("delay", -1)
        due: Any = row["due"] if delay < 0 else (now + delay) * 1000
        return {**row, "due": due, "incarnation": 0, "delay": -1}

    for name in FILES:
        found = source.small(name)
        made = target.small(name, made=True) if found is not None else None
        if found is None or made is None:
            continue
        with made[0].transaction():
            for of, to in zip(found[1], made[1], strict=True):
                copy(found[0], made[0], of, to, of_will if issubclass(to, WillRow) else changed)
    key = source.push_key()
    if key is not None:
        target.keep_push_key(key)
