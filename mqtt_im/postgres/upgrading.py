"""How the tables of an older release become those of this one.

A release that needs more starts beside the former one: its first start adds columns (`ADDED`), which the former one does not see,
and it works on tables that have nothing else of its own yet. What the former one could not bear is done by `mqtt-im store
upgrade`, once the last node of it has gone (`UPGRADES`); from then on it does not start any more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import psycopg

from mqtt_im.protocol.errors import StoreError

from . import meta, nodes
from .connecting import Connection, Database
from .errors import WrongDatabase, explained

UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    2: (
        "CREATE INDEX grp_large ON grp (cid) WHERE large",
        "UPDATE grp SET large = true WHERE size > 200",
    ),
}
"""By the number of the schema that they lead to, statements."""


class Upgraded(NamedTuple):
    """The numbers of the schema before and after."""

    before: int
    after: int


def upgrade(database: Database, connection: Connection) -> Upgraded:
    """The tables are those of this release, or what they were. Raises `StoreError`, also where an older release runs on them."""
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (meta.LOCK,))
            found = meta.read(database, connection)
            if found is None:
                raise WrongDatabase(f"{database.where}: there is no store")
            meta.add_columns(connection)
            nodes.bury(connection)
            if older := nodes.knowing_less(connection, meta.SCHEMA):
                raise StoreError(f"{database.where}: nodes of an older version run on it: {', '.join(older)}; stop them first")
            for number in range(found.schema + 1, meta.SCHEMA + 1):
                for statement in UPGRADES[number]:
                    connection.execute(statement.encode())
            connection.execute("UPDATE meta SET value = %s WHERE key = 'schema'", (str(meta.SCHEMA),))
    except psycopg.Error as error:
        raise explained(error, database.where) from error
    return Upgraded(found.schema, meta.SCHEMA)
