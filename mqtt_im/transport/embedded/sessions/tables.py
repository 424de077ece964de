"""The tables of `broker.db`, as models, and the statements of who writes them, as SQL on peewee's connection."""

from __future__ import annotations

from typing import Final

import peewee

SCHEMA: Final = 2


class SessionRow(peewee.Model):
    """A kept session; `filters` is a JSON map of granted filters, `plain` whether one of them is not under the prefix.

    `seen` is when its client last went, in seconds since 1970, 0 while it is there; `expires` the seconds that it is kept then.
    """

    user = peewee.TextField()
    name = peewee.TextField()
    id = peewee.TextField(unique=True)
    filters = peewee.TextField(default="{}")
    plain = peewee.BooleanField(default=False, index=True)
    seen = peewee.BigIntegerField(default=0)
    expires = peewee.BigIntegerField(default=0)

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "session"
        primary_key = peewee.CompositeKey("user", "name")


class QueuedRow(peewee.Model):
    """A plain message at QoS 1 or 2 that a kept session has not acknowledged; `expires` is ms since 1970, 0 for never."""

    session = peewee.TextField()
    seq = peewee.BigIntegerField()
    qos = peewee.IntegerField()
    retain = peewee.BooleanField()
    stage = peewee.IntegerField()
    topic = peewee.TextField()
    payload = peewee.BlobField()
    properties = peewee.BlobField(default=b"")
    expires = peewee.BigIntegerField(default=0)
    share = peewee.TextField(default="")

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "queued"
        primary_key = peewee.CompositeKey("session", "seq")


class ReceivedRow(peewee.Model):
    """A packet identifier of a QoS 2 PUBLISH that was received and not released (MQTT-4.3.3-2)."""

    session = peewee.TextField()
    packet_id = peewee.IntegerField()

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "received"
        primary_key = peewee.CompositeKey("session", "packet_id")
        without_rowid = True


class RetainedRow(peewee.Model):
    """A retained message; `expires` is ms since 1970, 0 for never."""

    topic = peewee.TextField(primary_key=True)
    qos = peewee.IntegerField()
    payload = peewee.BlobField()
    properties = peewee.BlobField(default=b"")
    expires = peewee.BigIntegerField(default=0)

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "retained"


class WillRow(peewee.Model):
    """A will whose delay runs; `due` is when it is published, ms since 1970."""

    user = peewee.TextField()
    name = peewee.TextField()
    device = peewee.TextField()
    due = peewee.BigIntegerField()
    topic = peewee.TextField()
    payload = peewee.BlobField()
    qos = peewee.IntegerField()
    retain = peewee.BooleanField()
    expiry = peewee.BigIntegerField(null=True)
    properties = peewee.BlobField()

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "will"
        primary_key = peewee.CompositeKey("user", "name")


MODELS: Final = (SessionRow, QueuedRow, ReceivedRow, RetainedRow, WillRow)
SINCE_2: Final = {
    "session": ("expires INTEGER NOT NULL DEFAULT 0",),
    "queued": ("properties BLOB NOT NULL DEFAULT x''", "expires INTEGER NOT NULL DEFAULT 0", "share TEXT NOT NULL DEFAULT ''"),
    "retained": ("properties BLOB NOT NULL DEFAULT x''", "expires INTEGER NOT NULL DEFAULT 0"),
}
"""Columns that schema 1 did not have."""

SAVE_SESSION: Final = (
    'INSERT INTO session ("user", name, id, filters, plain, seen, expires) VALUES (?, ?, ?, ?, ?, ?, ?) '
    'ON CONFLICT ("user", name) DO UPDATE SET id = excluded.id, filters = excluded.filters, plain = excluded.plain, '
    "seen = excluded.seen, expires = excluded.expires"
)
SEEN: Final = "UPDATE session SET seen = ?, expires = ? WHERE id = ?"
DROP_SESSION: Final = "DELETE FROM session WHERE id = ?"
DROP_QUEUE: Final = "DELETE FROM queued WHERE session = ?"
DROP_RECEIVED: Final = "DELETE FROM received WHERE session = ?"
ENQUEUE: Final = (
    "INSERT INTO queued (session, seq, qos, retain, stage, topic, payload, properties, expires, share) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session, seq) DO UPDATE SET "
    "qos = excluded.qos, retain = excluded.retain, stage = excluded.stage, topic = excluded.topic, "
    "payload = excluded.payload, properties = excluded.properties, expires = excluded.expires, share = excluded.share"
)
SET_STAGE: Final = "UPDATE queued SET stage = ? WHERE session = ? AND seq = ?"
DEQUEUE: Final = "DELETE FROM queued WHERE session = ? AND seq = ?"
RECEIVED: Final = "INSERT INTO received (session, packet_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
RELEASED: Final = "DELETE FROM received WHERE session = ? AND packet_id = ?"
RETAIN: Final = (
    "INSERT INTO retained (topic, qos, payload, properties, expires) VALUES (?, ?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE SET "
    "qos = excluded.qos, payload = excluded.payload, properties = excluded.properties, expires = excluded.expires"
)
UNRETAIN: Final = "DELETE FROM retained WHERE topic = ?"
UNRETAIN_EXPIRED: Final = "DELETE FROM retained WHERE topic = ? AND expires = ?"
DROP_RELAYED: Final = "DELETE FROM relayed WHERE id = ?"
"""Of what another node has written for a session; where `shared` alone."""
KEEP_WILL: Final = (
    'INSERT INTO will ("user", name, device, due, topic, payload, qos, retain, expiry, properties) '
    'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT ("user", name) DO UPDATE SET '
    "device = excluded.device, due = excluded.due, topic = excluded.topic, payload = excluded.payload, "
    "qos = excluded.qos, retain = excluded.retain, expiry = excluded.expiry, properties = excluded.properties"
)
KEEP_TESTAMENT: Final = "KEEP_TESTAMENT"
"""As `KEEP_WILL`, of a client that is connected, with the delay in seconds in place of `due`; where `shared` alone."""
DROP_WILL: Final = 'DELETE FROM will WHERE "user" = ? AND name = ?'
