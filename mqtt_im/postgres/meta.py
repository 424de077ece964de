"""What says whose database it is: table `meta`, made by the first start under a lock, and the number of its schema."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final, LiteralString, NamedTuple

import psycopg

from .connecting import Connection, Database
from .errors import NO_SCHEMA, Unreachable, WrongDatabase, explained

SCHEMA: Final = 2
"""Of all tables together. A newer release only adds to them; what it changes otherwise has a number of its own."""
ADDED: Final = (
    ("node", "knows", "int2 NOT NULL DEFAULT 1"),
    ("grp", "large", "bool NOT NULL DEFAULT false"),
    ("grp", "acts", "int8 NOT NULL DEFAULT 0"),
    ("member", "pulled", "int8 NOT NULL DEFAULT 0"),
    ("device", "left_by", "int8 NOT NULL DEFAULT 0"),
    ("device", "offered", "int8 NOT NULL DEFAULT 0"),
)
"""Table, column and kind of what releases have added since the first; the first start of one that lacks it does."""
ADDED_TABLES: Final = {
    "told": "CREATE TABLE told (cid int8, act int8, lsn int8 NOT NULL UNIQUE, former int8 NOT NULL, PRIMARY KEY (cid, act))"
}
"""The same of whole tables."""
ADDED_INDEXES: Final = {"told_former": "CREATE INDEX told_former ON told (former) WHERE former > 0"}
LOCK: Final = 0x6D71_7469_6D00
"""The advisory lock under which tables are made ("mqttim", and a number below)."""
UPKEEP: Final = LOCK + 1
"""Held by the node that does what one node does for all."""


class Meta(NamedTuple):
    """What the database says of itself."""

    epoch: str
    schema: int


def prepare(database: Database, connection: Connection, statements: Iterable[str]) -> Meta:
    """The tables are there; where they were not, `statements` have made them, all or none.

    Several nodes may start at once: one makes them, the others wait. Raises `WrongDatabase` where the database belongs to
    another program or a newer release, or the user may not make tables, else `Unreachable`.
    """
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            found = read(database, connection)
            if found is None:
                found = _make(database, connection, statements)
            add_columns(connection)
        return found
    except psycopg.errors.QueryCanceled as error:
        raise Unreachable(f"{database.where}: its tables are being made or copied; start again when that is over") from error
    except psycopg.Error as error:
        raise explained(error, database.where) from error


def read(database: Database, connection: Connection) -> Meta | None:
    """What `meta` says; None where there is none yet. Raises `WrongDatabase` where it is not ours, too new, or not to be read."""
    ((there, nowhere),) = _rows(connection, "SELECT to_regclass('meta') IS NOT NULL, current_schema() IS NULL")
    if nowhere:
        raise WrongDatabase(f"{database.where}: {NO_SCHEMA}")
    if not there:
        return None
    try:
        with connection.transaction():
            values = dict(_rows(connection, "SELECT key, value FROM meta WHERE key IN ('program', 'epoch', 'schema')"))
    except psycopg.errors.InsufficientPrivilege as error:
        raise explained(error, database.where) from error
    except (psycopg.errors.UndefinedColumn, ValueError):
        values = {}
    if values.get("program") != "mqtt-im":
        raise WrongDatabase(f"{database.where}: it holds tables of another program (meta); give mqtt-im a database of its own")
    for key in ("epoch", "schema"):
        if not values.get(key) or (key == "schema" and not values[key].isdecimal()):
            raise WrongDatabase(f"{database.where}: table meta is damaged: {key} is missing")
    schema = int(values["schema"])
    if schema > SCHEMA:
        raise WrongDatabase(f"{database.where}: made by a newer version (schema {schema}, this one knows {SCHEMA})")
    return Meta(values["epoch"], schema)


def _make(database: Database, connection: Connection, statements: Iterable[str]) -> Meta:
    others = _rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1 LIMIT 3")
    if others:
        names = ", ".join(name for (name,) in others)
        raise WrongDatabase(f"{database.where}: it holds tables of another program ({names}); give mqtt-im a database of its own")
    epoch = new_epoch()
    connection.execute("CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL)")
    for statement in statements:
        connection.execute(statement.encode())
    for key, value in (("program", "mqtt-im"), ("epoch", epoch), ("schema", str(SCHEMA))):
        connection.execute("INSERT INTO meta (key, value) VALUES (%s, %s)", (key, value))
    return Meta(epoch, SCHEMA)


def add_columns(connection: Connection) -> None:
    """Tables and columns that newer releases have are there; the others do not see them."""
    for table, statement in (*ADDED_TABLES.items(), *ADDED_INDEXES.items()):
        if connection.execute("SELECT FROM pg_class c WHERE c.oid = to_regclass(%s)", (table,)).fetchone() is None:
            connection.execute(statement.encode())
    for table, column, kind in ADDED:
        query: LiteralString = (
            "SELECT FROM pg_class c WHERE c.oid = to_regclass(%s) AND NOT EXISTS "
            "(SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %s AND NOT a.attisdropped)"
        )
        if connection.execute(query, (table, column)).fetchone() is not None:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}".encode())


def ticket_key(connection: Connection) -> bytes:
    """What every node signs tickets with; the first one that asks makes it."""
    insert: LiteralString = "INSERT INTO meta (key, value) VALUES ('ticket_key', %s) ON CONFLICT (key) DO NOTHING"
    connection.execute(insert, (secrets.token_hex(32),))
    return bytes.fromhex(_rows(connection, "SELECT value FROM meta WHERE key = 'ticket_key'")[0][0])


def change_epoch(database: Database, connection: Connection) -> str:
    """The store has a new name, which clients meet when they connect next; the name. Raises `StoreError`."""
    if read(database, connection) is None:
        raise WrongDatabase(f"{database.where}: there is no store")
    epoch = new_epoch()
    connection.execute("UPDATE meta SET value = %s WHERE key = 'epoch'", (epoch,))
    return epoch


def new_epoch() -> str:
    """A name that no store has had."""
    return secrets.token_hex(8)


def _rows(connection: Connection, sql: LiteralString) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()
