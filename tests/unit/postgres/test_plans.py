"""How PostgreSQL goes about what a batch asks of it, from the first one on."""

from __future__ import annotations

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.meta import prepare
from mqtt_im.store.postgres import committing, engine, lags, large, locked, node, retention, tables, writes
from mqtt_im.store.postgres.schema import DDL
from mqtt_im.store.postgres.wire import PLANNING, Statement

ALL = {"NAMES_AFTER", "NEWEST", "CLOCK"}
"""What no batch asks, but the start and listings."""


def test_no_statement_of_a_batch_or_of_retention_reads_a_table_from_end_to_end(database: str) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        prepare(there, connection, DDL)
        connection.execute(PLANNING)
        looked_at = 0
        for module in (tables, lags, large, locked, writes, node, committing, engine, retention):
            found = [(name, one) for name, of in vars(module).items() for one in (of if isinstance(of, tuple) else (of,))]
            for name, statement in found:
                if not isinstance(statement, Statement) or name in ALL or not statement.oids:
                    continue
                looked_at += 1
                types = ", ".join(f"{oid}::regtype" for oid in statement.oids)
                named = connection.execute(f"SELECT {types}".encode()).fetchone()
                assert named is not None
                connection.execute(b"PREPARE one (%b) AS %b" % (", ".join(named).encode(), statement.sql))
                plan = connection.execute(f"EXPLAIN EXECUTE one ({', '.join(['NULL'] * len(named))})".encode()).fetchall()
                connection.execute("DEALLOCATE one")
                text = "\n".join(line for (line,) in plan)
                assert "Seq Scan" not in text, f"{name}: {text}"
    assert looked_at > 50
