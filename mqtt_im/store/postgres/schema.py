"""The tables, as the first start makes them. What only SQLite needs (folds, generations, a base) has none here.

Why they look so was measured: an inbox is a short tail in its user's row and chunks behind it, a direct conversation one row with
both members' marks, the log one row for each thing that makes items. Two unique indexes of the log are belt and braces: a `seq`
or an `id` that was given twice can't be committed.

`log.seq` and `log.by` are 0 for what is no message, and `by` for what counts as unread for nobody. Users, groups, members and
devices are what `core.model` says of them; `device.acked` is where acknowledgements have got the cursor, `device.server` the
incarnation of the node that has its delivery, or had it last, `gone` how many messages retention has taken. What large groups
tell their members is in `told` (`large`); its `former` is the log row of the message that this one's `key` replaces, -1 where
there is none, and 0 where it has no `key`.
"""

from __future__ import annotations

from typing import Final

from mqtt_im.postgres import meta, nodes

DDL: Final = (
    *nodes.DDL,
    "CREATE SEQUENCE lsn INCREMENT BY 2000 MINVALUE 1",
    "CREATE SEQUENCE cid INCREMENT BY 1000 MINVALUE 1",
    """CREATE TABLE im_user (
      uid int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE,
      head int8 NOT NULL DEFAULT 0, first int8 NOT NULL DEFAULT 1, tail bytea NOT NULL DEFAULT '',
      sent int8 NOT NULL DEFAULT 0, sent_bytes int8 NOT NULL DEFAULT 0,
      floor int8 NOT NULL DEFAULT 0, began int8 NOT NULL DEFAULT 0, acked int8 NOT NULL DEFAULT 0,
      registered bool NOT NULL DEFAULT false, settings bytea,
      gone int8 NOT NULL DEFAULT 0, gone_bytes int8 NOT NULL DEFAULT 0,
      joined int8 NOT NULL DEFAULT 0, made int8 NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)""",
    "ALTER TABLE im_user ALTER tail SET STORAGE PLAIN",
    "CREATE TABLE chunk (uid int8, first int8, refs bytea NOT NULL, PRIMARY KEY (uid, first))",
    "ALTER TABLE chunk ALTER refs SET STORAGE PLAIN",
    """CREATE TABLE direct (
      a int8, b int8, cid int8 NOT NULL, head int8 NOT NULL, lsn int8 NOT NULL, ts int8 NOT NULL DEFAULT 0,
      gone int8 NOT NULL DEFAULT 0,
      a_read int8 NOT NULL DEFAULT 0, a_delivered int8 NOT NULL DEFAULT 0,
      b_read int8 NOT NULL DEFAULT 0, b_delivered int8 NOT NULL DEFAULT 0, parts bytea, PRIMARY KEY (a, b)
    ) WITH (fillfactor = 85)""",
    "CREATE INDEX direct_b ON direct (b)",
    "CREATE UNIQUE INDEX direct_cid ON direct (cid)",
    """CREATE TABLE grp (
      cid int8 PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, head int8 NOT NULL DEFAULT 0, lsn int8 NOT NULL DEFAULT 0,
      ts int8 NOT NULL DEFAULT 0, title text NOT NULL DEFAULT '', size int8 NOT NULL DEFAULT 0, born int8 NOT NULL DEFAULT 1,
      maker text NOT NULL DEFAULT '', gone int8 NOT NULL DEFAULT 0,
      large bool NOT NULL DEFAULT false, acts int8 NOT NULL DEFAULT 0) WITH (fillfactor = 50)""",
    "CREATE INDEX grp_large ON grp (cid) WHERE large",
    """CREATE TABLE member (
      cid int8, uid int8, ord int8 NOT NULL, role text NOT NULL, active bool NOT NULL,
      read int8 NOT NULL, delivered int8 NOT NULL,
      last int8 NOT NULL, spans bytea NOT NULL, pulled int8 NOT NULL DEFAULT 0, PRIMARY KEY (cid, uid)
    ) WITH (fillfactor = 70)""",
    "CREATE INDEX member_uid ON member (uid)",
    meta.ADDED_TABLES["told"],
    meta.ADDED_INDEXES["told_former"],
    """CREATE TABLE log (
      lsn int8 PRIMARY KEY, cid int8 NOT NULL, seq int8 NOT NULL, by int8 NOT NULL, idh uuid, rec bytea NOT NULL)""",
    "ALTER TABLE log ALTER rec SET STORAGE MAIN",
    "CREATE UNIQUE INDEX log_seq ON log (cid, seq) WHERE seq > 0",
    "CREATE UNIQUE INDEX log_idh ON log (idh) WHERE idh IS NOT NULL",
    """CREATE TABLE amended (
      cid int8, seq int8, recalled bool NOT NULL, edits int8 NOT NULL, edited int8 NOT NULL, size int8 NOT NULL,
      reactions bytea NOT NULL, PRIMARY KEY (cid, seq))""",
    "CREATE TABLE change (cid int8, seq int8, uid int8, count int8 NOT NULL, PRIMARY KEY (cid, seq, uid))",
    'CREATE TABLE mention (cid int8, name text COLLATE "C", seq int8, PRIMARY KEY (cid, name, seq))',
    """CREATE TABLE keyed (sender int8, cid int8, key text COLLATE "C", lsn int8 NOT NULL, PRIMARY KEY (sender, cid, key))""",
    """CREATE TABLE packet (
      uid int8, device text COLLATE "C", session text COLLATE "C", packet int8, lsn int8 NOT NULL,
      PRIMARY KEY (uid, device, session, packet)) WITH (fillfactor = 70)""",
    "CREATE INDEX packet_lsn ON packet (lsn)",
    """CREATE TABLE device (
      uid int8, device text COLLATE "C", cursor int8 NOT NULL, acked int8 NOT NULL, app bool NOT NULL, n int8 NOT NULL,
      exposed bool NOT NULL, server int8 NOT NULL, created int8 NOT NULL, seen int8 NOT NULL,
      left_by int8 NOT NULL DEFAULT 0, offered int8 NOT NULL DEFAULT 0, PRIMARY KEY (uid, device)
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)""",
    "CREATE TABLE word (lsn int8 PRIMARY KEY, cid int8 NOT NULL, seq int8 NOT NULL, ts int8 NOT NULL, words text[] NOT NULL)",
    "CREATE INDEX word_words ON word USING gin (words)",
    "INSERT INTO meta (key, value) VALUES ('searched', '')",
)
