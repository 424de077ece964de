"""Opens the store on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.nodes import Me
from mqtt_im.store.given import Given

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
