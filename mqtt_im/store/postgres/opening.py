"""Puts the ledger and the PostgreSQL engine together."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import psycopg

from mqtt_im.clock import Clock
from mqtt_im.core.rules import Limits
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.nodes import Me
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.uploads import NoUploads, Uploads

from .addressing import Wake
from .engine import Engine
from .large import MEMBERS


def opener(
    database: Database,
    *,
    me: Me,
    wake: Wake = lambda *_: None,
    limits: Limits | None = None,
    has_account: Callable[[str], bool] = lambda _: True,
    claim: Callable[[str, int], bool] = lambda *_: False,
    unclaim: Callable[[str, int], None] = lambda *_: None,
    online: Container[str] = frozenset(),
    uploads: Uploads | None = None,
    own_clock: bool = False,
    most_at_once: int = MEMBERS,
) -> Callable[[], Engine]:
    """What opens the store on a database, as this node; that raises `StoreError`. See `Engine` for the rest."""

    def make() -> Engine:
        try:
            return Engine(
                database,
                me,
                limits or Limits(),
                has_account,
                claim,
                unclaim,
                online,
                uploads or NoUploads(),
                wake,
                own_clock,
                most_at_once,
            )
        except psycopg.Error as error:
            raise explained(error, database.where) from error

    return make


def open_ledger(database: Database, *, clock: Clock | None = None, **options: Any) -> Ledger:
    """A ledger on a database, which is opened when it starts; `options` are those of `opener`."""
    return Ledger(opener(database, **options), clock=clock)
