"""Puts the ledger and the PostgreSQL engine together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from mqtt_im.clock import Clock
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.nodes import Me
from mqtt_im.store.given import Given
from mqtt_im.store.ledger import Ledger

from .addressing import Wake
from .engine import Engine
from .large import MEMBERS


def opener(
    database: Database,
    *,
    me: Me,
    given: Given = Given(),  # noqa: B008 - nothing of it changes
    wake: Wake = lambda *_: None,
    own_clock: bool = False,
    most_at_once: int = MEMBERS,
) -> Callable[[], Engine]:
    """What opens the store on a database, as this node; that raises `StoreError`. See `Engine` for the rest."""

    def make() -> Engine:
        try:
            return Engine(database, me, given, wake, own_clock, most_at_once)
        except psycopg.Error as error:
            raise explained(error, database.where) from error

    return make


def open_ledger(database: Database, *, clock: Clock | None = None, **options: Any) -> Ledger:
    """A ledger on a database, which is opened when it starts; `options` are those of `opener`."""
    return Ledger(opener(database, **options), clock=clock)
