"""Which nodes there are: table `node`, a row for each that runs, and the fence that keeps a dead one from committing.

A node says every `BEAT_S` seconds that it lives. One that has said nothing for `DEAD_S` seconds, by the database's clock, is
declared dead by whichever node looks: its row goes. Every transaction of the store ends by writing its number into the node's
own row (`store.postgres.node`): where that finds no row, this node was declared dead while it stood still, and the transaction
is rolled back. So nobody waits for a node to agree that it is dead, and nothing that it still had in hand can be committed.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import msgspec
import psycopg

from mqtt_im.protocol.errors import MqttImError, StoreError

from .connecting import Connection, Database
from .errors import explained
from .meta import LOCK, SCHEMA, change_epoch

BEAT_S: Final = 1.5
DEAD_S: Final = 6.0
FILE: Final = "node"
"""In `data_dir`: the name that was made, and the incarnation of the last start."""

DDL: Final = (
    """CREATE TABLE node (
        node int2 PRIMARY KEY, incarnation int8 NOT NULL UNIQUE, name text COLLATE "C" NOT NULL UNIQUE,
        seen timestamptz NOT NULL, batch int8 NOT NULL DEFAULT 0, knows int2 NOT NULL DEFAULT 1) WITH (fillfactor = 10)""",
)


class Kept(msgspec.Struct):
    """What the file in `data_dir` says."""

    name: str = ""
    incarnation: int = 0


@dataclass
class Me:
    """This node. All but its name change where it was declared dead and has come back."""

    name: str
    node: int = 0
    """A small number, free to be another node's later."""
    incarnation: int = 0
    """No other node, and no other run of this one, has or had it."""
    epoch: str = ""
    """Names the store, as this node tells its clients."""
    schema: int = SCHEMA
    """Of the tables, as they are now: an older one until `mqtt-im store upgrade` has run."""


def own_name(wanted: str, data_dir: Path, made: str) -> str:
    """The name of this node: the configured one, else the one that was made once and kept, else `made`, which is kept now."""
    kept = _kept(data_dir)
    if wanted:
        return wanted
    if not kept.name:
        kept.name = made
        _keep(data_dir, kept)
    return kept.name


def register(database: Database, connection: Connection, me: Me, data_dir: Path) -> None:
    """The node is there, with a new incarnation. Raises `MqttImError` with code `node` where another one has its name.

    A row that a former run on the same folder has left is taken over at once; one of somebody else's as soon as it is dead.
    """
    kept = _kept(data_dir)
    deadline = time.monotonic() + DEAD_S + BEAT_S
    first: Any = None
    try:
        while not _entered(connection, me, kept.incarnation):
            row = connection.execute("SELECT incarnation, seen FROM node WHERE name = %s", (me.name,)).fetchone()
            first = first or row
            if (row is not None and row != first) or time.monotonic() > deadline:
                raise MqttImError("node", f"cluster.node: a node named {me.name} runs already; give each node a name of its own")
            time.sleep(0.2)
    except psycopg.Error as error:
        raise explained(error, database.where) from error
    _keep(data_dir, Kept(kept.name, me.incarnation))


def _entered(connection: Connection, me: Me, mine: int) -> bool:
    incarnation = secrets.randbits(62)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        connection.execute(
            "DELETE FROM node WHERE name = %s AND (incarnation = %s OR seen < clock_timestamp() - make_interval(secs => %s))",
            (me.name, mine, DEAD_S),
        )
        if connection.execute("SELECT FROM node WHERE name = %s", (me.name,)).fetchone() is not None:
            return False
        taken = {number for (number,) in connection.execute("SELECT node FROM node").fetchall()}
        node = next(number for number in range(1, 32_768) if number not in taken)
        connection.execute(
            "INSERT INTO node (node, incarnation, name, seen, knows) VALUES (%s, %s, %s, clock_timestamp(), %s)",
            (node, incarnation, me.name, SCHEMA),
        )
        epoch = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    me.node, me.incarnation = node, incarnation
    me.epoch = epoch[0] if epoch else ""
    return True


def beat(connection: Connection, me: Me) -> bool:
    """Say that this node lives; False where it was declared dead."""
    query: LiteralString = (
        "UPDATE node SET seen = clock_timestamp() WHERE incarnation = %s"
        " RETURNING (SELECT value::int FROM meta WHERE key = 'schema')"
    )
    row = connection.execute(query, (me.incarnation,)).fetchone()
    if row is not None and row[0]:
        me.schema = row[0]
    return row is not None


def bury(connection: Connection) -> list[tuple[int, int, str]]:
    """Declare dead whoever is; their `(node, incarnation, name)`, told to one node alone.

    A row that a transaction of the dead node still holds is left for the next time: the server ends that transaction. It also
    ends the connection that `hold` was called on: while nobody reads from that, notifications pile up for all (8 GB at most).
    """
    dead = connection.execute(
        "DELETE FROM node WHERE node IN "
        "(SELECT node FROM node WHERE seen < clock_timestamp() - make_interval(secs => %s) FOR UPDATE SKIP LOCKED) "
        "RETURNING node, incarnation, name",
        (DEAD_S,),
    ).fetchall()
    if dead:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND (classid::int8 << 32 | objid::int8) = ANY (%s::int8[])",
            ([incarnation for _, incarnation, _ in dead],),
        )
    return dead


def hold(connection: Connection, me: Me) -> bool:
    """While this connection stands, others see that this incarnation's process does; False where a former one still holds it."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (me.incarnation,)).fetchone()
    return bool(row and row[0])


BURY_ENDED: Final = (
    "DELETE FROM public.node WHERE incarnation = ? AND pg_try_advisory_xact_lock(incarnation) RETURNING incarnation"
)
"""Declare a node dead whose process has ended: nobody holds what `hold` takes. Safe also where it has only lost a connection."""


def living(connection: Connection) -> dict[int, tuple[int, str]]:
    """The nodes that are there: `node` → incarnation and name."""
    rows = connection.execute("SELECT node, incarnation, name FROM node").fetchall()
    return {node: (incarnation, name) for node, incarnation, name in rows}


def knowing_less(connection: Connection, schema: int) -> list[str]:
    """The names of the nodes whose release does not know this schema."""
    return [name for (name,) in connection.execute("SELECT name FROM node WHERE knows < %s ORDER BY 1", (schema,)).fetchall()]


def keep_out(database: Database, connection: Connection) -> list[str]:
    """Who runs on the database; nobody begins to as long as this connection is open. A node that is dead is declared so.

    Raises `StoreError` where somebody else keeps them out, or a node is just starting.
    """
    try:
        row = connection.execute("SELECT pg_try_advisory_lock(%s), to_regclass('node') IS NOT NULL", (LOCK,)).fetchone()
        if row is None or not row[0]:
            raise StoreError(f"{database.where}: a node is starting on it, or `mqtt-im store copy` is at work; try again later")
        if not row[1]:
            return []
        bury(connection)
        return [name for _, name in living(connection).values()]
    except psycopg.Error as error:
        raise explained(error, database.where) from error


def begin_anew(database: Database, connection: Connection) -> tuple[str, list[str]]:
    """The store has a new epoch, and every node lets go of its clients and is a node again under that.

    The epoch, and the names of the nodes that live and have not done so within some seconds. Raises `StoreError`.
    """
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            epoch = change_epoch(database, connection)
            gone = connection.execute(
                "DELETE FROM node RETURNING name, seen >= clock_timestamp() - make_interval(secs => %s)", (DEAD_S,)
            ).fetchall()
        waiting = {name for name, lives in gone if lives}
        deadline = time.monotonic() + DEAD_S + BEAT_S
        while waiting and time.monotonic() < deadline:
            waiting.difference_update(name for _, name in living(connection).values())
            time.sleep(0.05)
    except psycopg.Error as error:
        raise explained(error, database.where) from error
    return epoch, sorted(waiting)


def leave(connection: Connection, me: Me) -> None:
    """The node is there no more."""
    connection.execute("DELETE FROM node WHERE incarnation = %s", (me.incarnation,))


def _kept(data_dir: Path) -> Kept:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=Kept)
    return Kept()


def _keep(data_dir: Path, kept: Kept) -> None:
    partial = data_dir / f"{FILE}.new"
    partial.write_bytes(msgspec.json.encode(kept))
    partial.replace(data_dir / FILE)
