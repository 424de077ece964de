"""Tables, as peewee models.

Of two SQLite files (`files.py`). `mqtt-im.db` is the truth: the log, which only grows at its end, the base, which is what rows
that are gone have left behind (`retention/base.py`), and what names the store. `projection.db` is everything that can be made
from it again, and says in `meta` how far it got and whose epoch it is.

The statements of the hot path are SQL on the same connections and stand in `log.py`, `projection.py` and `rows.py`.
"""

from __future__ import annotations

import peewee

_ZERO = peewee.SQL("DEFAULT 0")


class LogRow(peewee.Model):
    """One record; `rec` is MessagePack (`core.records`)."""

    lsn = peewee.IntegerField(primary_key=True)
    rec = peewee.BlobField()

    class Meta:
        table_name = "log"


class LogMeta(peewee.Model):
    """What names the store: `epoch`; how the clocks stood last: `clock` (`mqtt_im.clock`)."""

    key = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        table_name = "meta"
        without_rowid = True


class FoldRow(peewee.Model):
    """The last transaction of retention, counted from 1; `base` is the log row as of which the base is from then on.

    `plan` (`folds.Plan`, MessagePack) is the last part of what is to be done for it; empty once all is done.
    """

    number = peewee.IntegerField(primary_key=True)
    base = peewee.IntegerField()
    plan = peewee.BlobField()

    class Meta:
        table_name = "fold"


class FoldPart(peewee.Model):
    """A part of the plan of the fold `number`, which counts only once that one is decided (`folds.Plan`, MessagePack)."""

    number = peewee.IntegerField()
    plan = peewee.BlobField()

    class Meta:
        table_name = "fold_part"


class ProjectionMeta(peewee.Model):
    """How far the projection got: `epoch`, `lsn`, and `fold`, the number of the last one that it has."""

    key = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        table_name = "meta"
        without_rowid = True


class UserRow(peewee.Model):
    """See `core.model.User`; `settings` is MessagePack."""

    uid = peewee.IntegerField(primary_key=True)
    name = peewee.TextField(unique=True)
    head = peewee.IntegerField()
    floor = peewee.IntegerField()
    acked = peewee.IntegerField()
    registered = peewee.IntegerField()
    sent = peewee.IntegerField(constraints=[_ZERO])
    sent_bytes = peewee.IntegerField(constraints=[_ZERO])
    gone = peewee.IntegerField(constraints=[_ZERO])
    gone_bytes = peewee.IntegerField(constraints=[_ZERO])
    joined = peewee.IntegerField(constraints=[_ZERO])
    made = peewee.IntegerField(constraints=[_ZERO])
    settings = peewee.BlobField(null=True)

    class Meta:
        table_name = "user"


class ConvRow(peewee.Model):
    """See `core.model.Conv`."""

    cid = peewee.IntegerField(primary_key=True)
    name = peewee.TextField(unique=True)
    head = peewee.IntegerField()
    lsn = peewee.IntegerField()
    title = peewee.TextField()
    size = peewee.IntegerField(constraints=[_ZERO])
    born = peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 1")])
    maker = peewee.TextField(constraints=[peewee.SQL("DEFAULT ''")])

    class Meta:
        table_name = "conv"


class MemberRow(peewee.Model):
    """See `core.model.Member`; `grp` marks groups, `spans` is MessagePack, None for all there is.

    `latest`, in the projections alone, is the log row of the newest message that the member may read: the order of `convs`.
    """

    uid = peewee.IntegerField()
    cid = peewee.IntegerField()
    grp = peewee.IntegerField()
    ord = peewee.IntegerField()
    role = peewee.TextField()
    active = peewee.IntegerField()
    read = peewee.IntegerField()
    delivered = peewee.IntegerField()
    spans = peewee.BlobField(null=True)
    last = peewee.IntegerField(constraints=[_ZERO])
    latest = peewee.IntegerField(constraints=[_ZERO])

    class Meta:
        table_name = "member"
        primary_key = peewee.CompositeKey("uid", "cid")
        without_rowid = True


MemberRow.add_index(MemberRow.cid, where=MemberRow.grp == 1, name="member_of_group")


class DeviceRow(peewee.Model):
    """See `core.model.Device`; `seen` is negative of one that is `exposed`."""

    uid = peewee.IntegerField()
    device = peewee.TextField()
    cursor = peewee.IntegerField()
    app = peewee.IntegerField()
    n = peewee.IntegerField()
    created = peewee.IntegerField()
    seen = peewee.IntegerField()

    class Meta:
        table_name = "device"
        primary_key = peewee.CompositeKey("uid", "device")
        without_rowid = True


class ItemRow(peewee.Model):
    """An item of an inbox: its log row, negative where the item was replaced."""

    uid = peewee.IntegerField()
    pos = peewee.IntegerField()
    lsn = peewee.IntegerField()

    class Meta:
        table_name = "item"
        primary_key = peewee.CompositeKey("uid", "pos")
        without_rowid = True


class MessageRow(peewee.Model):
    """A message of a conversation: its log row and its sender, 0 for one that counts as unread for nobody."""

    cid = peewee.IntegerField()
    seq = peewee.IntegerField()
    lsn = peewee.IntegerField()
    by = peewee.IntegerField()

    class Meta:
        table_name = "message"
        primary_key = peewee.CompositeKey("cid", "seq")
        without_rowid = True


class MentionRow(peewee.Model):
    """A message that mentions a user; 0 stands for everybody."""

    cid = peewee.IntegerField()
    uid = peewee.IntegerField()
    seq = peewee.IntegerField()

    class Meta:
        table_name = "mention"
        primary_key = peewee.CompositeKey("cid", "uid", "seq")
        without_rowid = True


class AmendedRow(peewee.Model):
    """See `core.model.Amended`; `reactions` is MessagePack."""

    cid = peewee.IntegerField()
    seq = peewee.IntegerField()
    recalled = peewee.IntegerField()
    edits = peewee.IntegerField()
    edited = peewee.IntegerField()
    bytes = peewee.IntegerField()
    reactions = peewee.BlobField()

    class Meta:
        table_name = "amended"
        primary_key = peewee.CompositeKey("cid", "seq")
        without_rowid = True


class ChangeRow(peewee.Model):
    """How many edits, reactions and reports of a message a user has made."""

    cid = peewee.IntegerField()
    seq = peewee.IntegerField()
    uid = peewee.IntegerField()
    count = peewee.IntegerField()

    class Meta:
        table_name = "change"
        primary_key = peewee.CompositeKey("cid", "seq", "uid")
        without_rowid = True


class RequestRow(peewee.Model):
    """An id that was used, and the log row that it made."""

    uid = peewee.IntegerField()
    id = peewee.TextField()
    lsn = peewee.IntegerField()

    class Meta:
        table_name = "request"
        primary_key = peewee.CompositeKey("uid", "id")
        without_rowid = True


class PacketRow(peewee.Model):
    """The newest PUBLISH without id of each packet identifier of a device's session."""

    user = peewee.TextField()
    device = peewee.TextField()
    session = peewee.TextField()
    packet = peewee.IntegerField()
    lsn = peewee.IntegerField()

    class Meta:
        table_name = "packet"
        primary_key = peewee.CompositeKey("user", "device", "session", "packet")
        without_rowid = True


class KeyedRow(peewee.Model):
    """The newest message of a sender with a key in a conversation."""

    sender = peewee.TextField()
    conv = peewee.TextField()
    key = peewee.TextField()
    lsn = peewee.IntegerField()

    class Meta:
        table_name = "keyed"
        primary_key = peewee.CompositeKey("sender", "conv", "key")
        without_rowid = True


PROJECTION_VERSION = 3
PROJECTION_INDEXES = (
    "CREATE INDEX member_latest ON member (uid, latest)",
    "CREATE INDEX member_in_group ON member (uid, cid) WHERE grp = 1 AND active = 1",
)
"""Of the projections alone: the base's entities are read one by one."""

LOG_MODELS = [LogRow, LogMeta]
ENTITY_MODELS = [UserRow, ConvRow, MemberRow, DeviceRow]
"""The projections' tables that the base has too."""
PROJECTION_MODELS: list[type[peewee.Model]] = [
    ProjectionMeta,
    UserRow,
    ConvRow,
    MemberRow,
    DeviceRow,
    ItemRow,
    MessageRow,
    MentionRow,
    AmendedRow,
    ChangeRow,
    RequestRow,
    PacketRow,
    KeyedRow,
]
