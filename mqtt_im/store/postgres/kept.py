"""What a user keeps, read from the tables."""

from __future__ import annotations

import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.meta import read
from mqtt_im.store.kept import Kept, kept

from .look import Look
from .wire import Link


def kept_by(database: Database, user: str) -> Kept | None:
    """What the user keeps now; None where nothing ever was. Raises `StoreError`."""
    with database.connect("kept") as connection:
        if read(database, connection) is None:
            return None
        try:
            return kept(Look(Link(connection), lambda _: True, lambda _: None), user)
        except psycopg.Error as error:
            raise explained(error, database.where) from error
