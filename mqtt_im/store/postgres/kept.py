"""What a user keeps, read from the tables, also where no node of this release has started on them yet."""

from __future__ import annotations

from typing import Final

import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.meta import read
from mqtt_im.store.tools.kept import Kept, kept

from .look import Look
from .wire import Link, Statement

_DEVICES: Final = Statement("SELECT count(*) FROM device WHERE uid = $1", "i")


class _Known(Look):
    """Implements `tools.kept.Known`."""

    def device_count(self, user: str) -> int:
        """See `View`."""
        found: int = self.link.one(_DEVICES, self.user(user).uid)[0][0]
        return found


def kept_by(database: Database, user: str) -> Kept | None:
    """What the user keeps now; None where nothing ever was. Raises `StoreError`."""
    with database.connect("kept") as connection:
        if read(database, connection) is None:
            return None
        try:
            return kept(_Known(Link(connection), lambda _: True, lambda _: None), user)
        except psycopg.Error as error:
            raise explained(error, database.where) from error
