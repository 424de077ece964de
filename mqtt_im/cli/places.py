"""Where the small tables of a configured server are: its folder, or its database."""

from __future__ import annotations

from mqtt_im.config import Config
from mqtt_im.tables import Folder, Place


def place_for(config: Config) -> Place:
    """The place. Raises `StoreError` where the URL is none; the database is asked nothing yet."""
    if not config.store.url:
        return Folder(config.data_dir)
    from mqtt_im.postgres.connecting import Database
    from mqtt_im.tables.postgres import Schemas

    return Schemas(Database(config.store.url))
