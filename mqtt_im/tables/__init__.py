"""Small tables of the server's parts: each set in an SQLite file of its own, or in a schema of its own in PostgreSQL.

The parts are the same over both: they are given a `Place`, open their `Tables` in it, and write peewee queries, or SQL that
both databases read (`?` for values, `ON CONFLICT` in place of SQLite's `OR REPLACE`). What differs is here. A transaction
is the only one that writes to its tables, on PostgreSQL as on SQLite, so what it has read stays true until it is over.
"""

from .interface import Place, Tables, put
from .sqlite import Folder, place_of

__all__ = ["Folder", "Place", "Tables", "place_of", "put"]
