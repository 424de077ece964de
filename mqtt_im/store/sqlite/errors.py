"""What a store that can't be read or written raises."""

from __future__ import annotations

import sqlite3
from typing import Final

import peewee

ERRORS: Final[tuple[type[Exception], ...]] = (sqlite3.Error, peewee.DatabaseError)
"""Of both layers; anything else is a fault of ours."""
