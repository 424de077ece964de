"""What the store raises where the database can't be read or written."""

from __future__ import annotations

from typing import Final

import psycopg

from mqtt_im.protocol.errors import StoreError


class Lost(psycopg.OperationalError):
    """The connection is gone; whether a transaction was committed with it is not known."""


class Fenced(psycopg.OperationalError):
    """This node was declared dead, or another one has its name: it may commit nothing until it is a node again."""


ERRORS: Final[tuple[type[Exception], ...]] = (psycopg.Error, StoreError)
"""Anything else is a fault of ours."""
