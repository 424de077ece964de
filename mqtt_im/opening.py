"""Floor 4: which store the configuration asks for, and how it is opened: SQLite in `data_dir`, or PostgreSQL (`store.url`)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mqtt_im import logs
from mqtt_im.config import Config
from mqtt_im.search.thread import Index
from mqtt_im.store.given import Given
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite import opening as sqlite
from mqtt_im.store.sqlite import upkeep as sqlite_upkeep
from mqtt_im.store.sqlite.lags import Lags as SqliteLags
from mqtt_im.tables import Folder, Place

if TYPE_CHECKING:
    from mqtt_im.postgres.connecting import Database
    from mqtt_im.postgres.nodes import Me


@dataclass(frozen=True)
class Joined:
    """The database that this node has joined, and the node's entry in it."""

    database: Database
    me: Me
    ticket_key: bytes


class Lags(Protocol):
    """How far registered devices are behind their inboxes, as of some seconds ago."""

    behind: int
    """Devices that have not acknowledged all of their inbox."""
    worst: int
    """Items that the one furthest behind lacks."""

    async def run(self) -> None:
        """Never returns; to be cancelled."""


def open_store(config: Config, joined: Joined | None, wake: Callable[..., None], given: Given) -> Ledger:
    """The ledger, which opens its store when it starts.

    `wake` is told, on the ledger's thread, what others are to know of each commit (`store.postgres.addressing`).
    """
    if joined is None:
        synchronous, memory_mb = config.store.synchronous, config.limits.memory_mb
        return sqlite.open_ledger(Path(config.data_dir), given=given, synchronous=synchronous, memory_mb=memory_mb)
    from mqtt_im.store.postgres.opening import opener

    return Ledger(opener(joined.database, me=joined.me, given=given, wake=wake))


def index_of(config: Config) -> Callable[[], Index] | None:
    """What opens the search index where it is not in `data_dir`."""
    if not config.store.url:
        return None

    def make() -> Index:
        from mqtt_im.search.postgres import PostgresIndex

        return PostgresIndex(database_of(config))

    return make


def database_of(config: Config) -> Database:
    """The database of `store.url`, for a command. Raises `StoreError`."""
    from mqtt_im.postgres.connecting import Database

    return Database(config.store.url)


async def keep_up(ledger: Ledger, config: Config, policy: Policy, note_connected: Callable[[], None]) -> None:
    """Retention runs when it is due. Never returns; to be cancelled."""
    if config.store.url:
        from mqtt_im.store.postgres.upkeep import Upkeep

        await Upkeep(ledger, policy, note_connected).run()
    else:
        await sqlite_upkeep.Upkeep(ledger, Path(config.data_dir), policy, note_connected).run()


def join(config: Config, stop: Callable[[], bool]) -> Joined:
    """The database is there, its tables too, and this node is one of its nodes; for a thread that may wait.

    It is waited for until `stop` says so; then `StoreError`. Raises `MqttImError` where the database can't be used as configured.
    """
    import psycopg

    from mqtt_im.postgres.connecting import Database
    from mqtt_im.postgres.errors import explained
    from mqtt_im.postgres.meta import prepare, ticket_key
    from mqtt_im.postgres.nodes import Me, own_name, register
    from mqtt_im.store.postgres.schema import DDL

    folder = Path(config.data_dir)
    me = Me(own_name(config.cluster.node, folder, f"{socket.gethostname()}:{config.mqtt.bind.rpartition(':')[2]}"))
    logs.name_node(me.name)
    database = Database(config.store.url, me.name)
    try:
        with database.wait_for("start", stop=stop) as connection:
            database.check_pooling(connection)
            prepare(database, connection, DDL)
            register(database, connection, me, folder)
            key = ticket_key(connection)
    except psycopg.Error as error:
        raise explained(error, database.where) from error
    return Joined(database, me, key)


def lags_of(config: Config, ledger: Ledger) -> Lags:
    """How far devices are behind."""
    if not config.store.url:
        return SqliteLags(Path(config.data_dir))
    from mqtt_im.store.postgres.lags import Lags as TableLags

    return TableLags(ledger)


def place_for(config: Config, joined: Joined | None) -> Place:
    """Where this node's small tables are."""
    if joined is None:
        return Folder(config.data_dir)
    from mqtt_im.tables.postgres import Schemas

    return Schemas(joined.database)
