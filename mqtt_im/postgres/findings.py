"""What `mqtt-im doctor` says of a database: release, rights, settings that lose what was acknowledged, room, clocks, standbys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, Literal, LiteralString

import psycopg

from mqtt_im.protocol.errors import MqttImError

from . import meta
from .connecting import Connection, Database
from .errors import one_line

Line = tuple[Literal["ok", "note", "mend"], str]

CONNECTIONS: Final = 6
"""Of one node."""
_CLOCK_S: Final = 5.0
_LAG_BYTES: Final = 64 << 20


def examine(database: Database) -> Iterator[Line]:
    """`ok`, `note` or `mend`, and one line each."""
    try:
        with database.connect("doctor") as connection:
            yield "ok", f"{database.where}: PostgreSQL {connection.info.server_version // 10_000} takes writes"
            yield from _pooling(database, connection)
            yield from _tables(database, connection)
            yield from _durability(connection)
            yield from _room(connection)
            yield from _clock(connection)
            yield from _standbys(connection)
    except MqttImError as error:
        yield "mend", error.message
    except psycopg.Error as error:
        yield "mend", f"{database.where}: {one_line(error)}"


def _pooling(database: Database, connection: Connection) -> Iterator[Line]:
    try:
        database.check_pooling(connection)
    except MqttImError as error:
        yield "mend", error.message


def _tables(database: Database, connection: Connection) -> Iterator[Line]:
    found = meta.read(database, connection)
    if found is not None:
        yield "ok", f"{database.where}: the tables are there (schema {found.schema}), of epoch {found.epoch}"
        count = _one(connection, "SELECT count(*) FROM node WHERE seen > clock_timestamp() - interval '6 seconds'")
        yield "ok", f"{count} node{'' if count == 1 else 's'} running on it"
        return
    yield "note", f"{database.where}: there are no tables yet; the first start makes them"
    rights: LiteralString = (
        "SELECT has_database_privilege(current_database(), 'CREATE') AND has_schema_privilege(current_schema(), 'CREATE')"
    )
    if not _one(connection, rights):
        yield "mend", f"{database.where}: its user may not make tables and schemas; make it the owner of the database"


def _durability(connection: Connection) -> Iterator[Line]:
    if _one(connection, "SHOW synchronous_commit") == "off":
        yield "mend", "synchronous_commit is off: what was acknowledged last is lost when the database crashes"
    if _one(connection, "SHOW fsync") == "off":
        yield "mend", "fsync is off: a power cut can destroy the database"
    if _one(connection, "SHOW autovacuum") == "off":
        yield "mend", "autovacuum is off: tables grow without end, and recalled messages stay in them"


def _room(connection: Connection) -> Iterator[Line]:
    most, taken = int(_one(connection, "SHOW max_connections")), _one(connection, "SELECT count(*) FROM pg_stat_activity")
    if most - taken < CONNECTIONS:
        yield "mend", f"{taken} of {most} connections are taken; a node needs up to {CONNECTIONS} (max_connections)"
    else:
        yield "ok", f"{taken} of {most} connections are taken; a node needs up to {CONNECTIONS}"


def _clock(connection: Connection) -> Iterator[Line]:
    before = time.time()
    theirs = float(_one(connection, "SELECT extract(epoch FROM clock_timestamp())"))
    off = theirs - (before + time.time()) / 2
    if abs(off) > _CLOCK_S:
        yield (
            "mend",
            f"the database's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's; its time counts",
        )


def _standbys(connection: Connection) -> Iterator[Line]:
    rows = connection.execute(
        "SELECT coalesce(nullif(application_name, ''), client_addr::text), sync_state, "
        "coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::int8 FROM pg_stat_replication"
    ).fetchall()
    if any(state is None for _, state, _ in rows):  # so it is for who may not see it, and the lag then too
        who = connection.info.user
        yield "note", f"standbys: {len(rows)}; how far they are behind can be seen after GRANT pg_monitor TO {who}"
        return
    for name, state, behind in rows:
        yield "mend" if behind > _LAG_BYTES else "ok", f"standby {name} ({state}) is {behind >> 10} KiB behind"
    if rows and not any(state in ("sync", "quorum") for _, state, _ in rows):
        yield "note", "no standby is synchronous: what was acknowledged last may be lost in a fail-over"


def _one(connection: Connection, sql: LiteralString) -> Any:
    row = connection.execute(sql).fetchone()
    return None if row is None else row[0]
