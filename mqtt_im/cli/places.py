"""Where the small tables of a configured server are: its folder, or its database."""

from __future__ import annotations

from mqtt_im.config import Config
from mqtt_im.tables import Folder, Place


def place_for(config: Config) -> Place:
    """The place. Raises `StoreError` where the database is not there, not ours, or has tables of a newer release."""
    if not config.store.url:
        return Folder(config.data_dir)
    from mqtt_im.postgres.connecting import Database
    from mqtt_im.postgres.meta import read
    from mqtt_im.tables.postgres import Schemas

    database = Database(config.store.url)
    with database.connect("command") as connection:
        read(database, connection)
    return Schemas(database)
