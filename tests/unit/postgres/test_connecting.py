"""How the database is reached, and what each thing that may be wrong with it is told as."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import psycopg
import pytest

from mqtt_im.postgres import meta
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import Unreachable, WrongDatabase, explained
from mqtt_im.postgres.meta import prepare
from mqtt_im.protocol.errors import ConfigError
from tests.support.postgres import Cluster


def test_a_statement_runs_and_the_server_ends_transactions_that_stand_still(database: str) -> None:
    with Database(database, "n1").connect("test") as connection:
        shown = connection.execute(
            "SELECT current_setting('application_name'), current_setting('idle_in_transaction_session_timeout')"
        ).fetchone()
    assert shown == ("mqtt-im n1 test", "5s")


def test_a_server_that_says_nothing_is_given_up(own_postgres: Cluster) -> None:
    connection = Database(own_postgres.url()).connect("test", patience_s=0.3)
    own_postgres.freeze()
    with pytest.raises(psycopg.OperationalError, match="does not answer"):
        connection.execute("SELECT 1")
    assert connection.closed  # whatever it still answers, nobody takes it for the answer to the next statement
    own_postgres.thaw()


def test_the_host_that_takes_writes_is_found(own_postgres: Cluster) -> None:
    standby = own_postgres.standby()
    try:
        hosts = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{own_postgres.port}/postgres"
        database = Database(hosts)
        with database.connect("test") as connection:
            assert connection.info.port == own_postgres.port
        own_postgres.kill()
        with pytest.raises(Unreachable):
            database.connect("test")
        standby.promote()
        with database.connect("test") as connection:
            assert connection.info.port == standby.port
    finally:
        standby.close()


def test_the_database_is_waited_for(own_postgres: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    own_postgres.stop()
    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=lambda: Database(own_postgres.url()).wait_for("test").close())
        thread.start()
        while not caplog.records:
            time.sleep(0.01)
        own_postgres.start()
        thread.join()
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == ["waiting for the database"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("/test", "/nowhere_"), "does not exist"),
        (("postgres@", "nobody@"), "does not exist"),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(database: str, change: tuple[str, str], why: str) -> None:
    with pytest.raises(WrongDatabase, match=why) as told:
        Database(database.replace(*change)).connect("test")
    assert "\n" not in told.value.message


def test_what_the_url_asks_for_and_is_not_known_is_told_at_once(database: str) -> None:
    with pytest.raises(WrongDatabase, match='invalid sslmode value: "sometimes"'):
        Database(f"{database}?sslmode=sometimes").connect("test")


@pytest.mark.parametrize("url", ["postgresql://a:secret@b c", "postgresql://a:secret@h/d?secret=1", "postgresql://[secret"])
def test_a_url_that_is_none_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://") as told:
        Database(url)
    assert "secret" not in told.value.message


@pytest.mark.parametrize("port", ["99999", "9" * 5_000, "usual"])
def test_a_port_that_is_none_is_a_mistake_of_the_configuration(port: str) -> None:
    with pytest.raises(ConfigError, match="a port is a number from 1 to 65535"):
        Database(f"postgresql://127.0.0.1:{port}/im")


@pytest.mark.parametrize(("encoding", "takes_all"), [("LATIN1", False), ("SQL_ASCII", True)])
def test_a_database_that_does_not_take_every_text_is_refused(postgres: Cluster, encoding: str, takes_all: bool) -> None:
    name = f"encoded_{encoding.lower()}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
    there = Database(postgres.url(name))
    try:
        if takes_all:
            there.connect("test").close()
        else:
            with pytest.raises(WrongDatabase, match="its encoding is LATIN1; make one with ENCODING 'UTF8'"):
                there.connect("test")
    finally:
        postgres.drop(name)


def test_nobody_at_the_address_is_waited_for(own_postgres: Cluster) -> None:
    own_postgres.stop()
    with pytest.raises(Unreachable, match="Connection refused"):
        Database(own_postgres.url()).connect("test")


class _Old(Database):
    def _set_up(self, connection: psycopg.Connection, patience_s: float) -> None:
        class Info:
            server_version = 130_012

        class Stub:
            info = Info()

        super()._set_up(Stub(), patience_s)  # type: ignore[arg-type]


def test_too_old_a_server_is_refused(database: str) -> None:
    with pytest.raises(WrongDatabase, match="PostgreSQL 13 is too old; 14 or newer"):
        _Old(database).connect("test")


def test_a_user_without_rights_is_told_what_to_grant(postgres: Cluster, database: str) -> None:
    guest = Database(database.replace("postgres@", "guest@"))
    with postgres.role("guest"), guest.connect("test") as connection:
        with pytest.raises(WrongDatabase, match=r"permission denied.* granted CREATE"):
            prepare(guest, connection, ())
        postgres.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", database.rpartition("/")[2])
        with pytest.raises(WrongDatabase, match=r"its user may use no schema there; .* grant it USAGE and CREATE"):
            prepare(guest, connection, ())


def test_tables_of_another_user_are_told_as_such(postgres: Cluster, database: str) -> None:
    """To what only looks at them, too."""
    owner, guest = Database(database), Database(database.replace("postgres@", "stranger@"))
    with owner.connect("test") as connection:
        prepare(owner, connection, ())
    with postgres.role("stranger"), guest.connect("test") as connection:
        with pytest.raises(WrongDatabase, match=r"permission denied for table meta; .* must own"):
            meta.read(guest, connection)
        postgres.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", database.rpartition("/")[2])
        with pytest.raises(WrongDatabase, match="its user may use no schema there"):
            meta.read(guest, connection)


def test_a_full_disk_is_told_as_one() -> None:
    told = explained(psycopg.errors.DiskFull('could not extend file "base/1": No space left on device\nHINT: x'), "database d")
    assert isinstance(told, Unreachable)
    assert told.message == 'database d: the database has no room: could not extend file "base/1": No space left on device'


def test_the_first_of_several_nodes_makes_the_tables(database: str) -> None:
    made: list[meta.Meta] = []

    def start() -> None:
        there = Database(database)
        with there.connect("test") as connection:
            made.append(prepare(there, connection, ("SELECT pg_sleep(0.05)", "CREATE TABLE something (x int)")))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4 and len(set(made)) == 1 and made[0].schema == meta.SCHEMA and len(made[0].epoch) == 16


def test_tables_that_could_not_be_made_leave_nothing(database: str) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        with pytest.raises(WrongDatabase):
            prepare(there, connection, ("CREATE TABLE one (x int)", "CREATE TABLE broken ("))
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE orders (id int)", r"tables of another program \(orders\)"),
        ("CREATE TABLE meta (id int)", r"tables of another program \(meta\)"),
        ("CREATE TABLE meta (key text, value text)", r"tables of another program \(meta\)"),
        (
            """CREATE TABLE meta (key text, value text);
            INSERT INTO meta VALUES ('program', 'mqtt-im'), ('epoch', 'e'), ('schema', '9')""",
            r"made by a newer version \(schema 9, this one knows 2\)",
        ),
    ],
)
def test_somebody_elses_database_is_not_touched(database: str, sql: str, why: str) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        connection.execute(sql.encode())
        with pytest.raises(WrongDatabase, match=why):
            prepare(there, connection, ("CREATE TABLE ours (x int)",))
        assert connection.execute("SELECT to_regclass('ours')").fetchone() == (None,)


def test_a_new_epoch_is_another_one(database: str, tmp_path: Path) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        with pytest.raises(WrongDatabase, match="there is no store"):
            meta.change_epoch(there, connection)
        before = prepare(there, connection, ())
        after = meta.change_epoch(there, connection)
        assert after != before.epoch and prepare(there, connection, ()).epoch == after


def test_a_connection_without_a_pool_is_not_suspected(database: str) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        began = time.monotonic()
        there.check_pooling(connection)
        assert time.monotonic() - began < 2
