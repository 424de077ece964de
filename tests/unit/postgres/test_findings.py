"""What `mqtt-im doctor` says of a database."""

from __future__ import annotations

from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.findings import examine
from mqtt_im.postgres.meta import prepare
from tests.support.postgres import Cluster
from tests.support.raw import eventually


def _told(url: str, verdict: str) -> list[str]:
    return [text for found, text in examine(Database(url)) if found == verdict]


def test_a_new_database_gets_its_tables_from_the_first_start(database: str) -> None:
    assert any("there are no tables yet" in text for text in _told(database, "note"))
    assert _told(database, "mend") == ["fsync is off: a power cut can destroy the database"]  # as tests have it


def test_what_loses_acknowledged_messages_is_told(database: str) -> None:
    url = f"{database}?options=-csynchronous_commit%3Doff"
    there = Database(url)
    with there.connect("test") as connection:
        prepare(there, connection, nodes.DDL)
        assert any(text.startswith("synchronous_commit is off") for text in _told(url, "mend"))
        assert any("the tables are there" in text for text in _told(url, "ok"))
        assert any("0 nodes running" in text for text in _told(url, "ok"))


def test_a_user_without_rights_is_told(postgres: Cluster, database: str) -> None:
    with postgres.role("looker"):
        assert any("may not make tables" in text for text in _told(database.replace("postgres@", "looker@"), "mend"))


def test_standbys_are_told_with_how_far_they_are_behind(own_postgres: Cluster) -> None:
    standby = own_postgres.standby()
    try:
        eventually(lambda: any("KiB behind" in text for text in _told(own_postgres.url(), "ok")), "it follows")
        assert any("no standby is synchronous" in text for text in _told(own_postgres.url(), "note"))
        with own_postgres.role("looker"):
            url = own_postgres.url(user="looker")
            (told,) = (text for text in _told(url, "note") if "standby" in text)
            assert told == "standbys: 1; how far they are behind can be seen after GRANT pg_monitor TO looker"
            assert not any("standby" in text for text in _told(url, "ok"))
            own_postgres.execute("GRANT pg_monitor TO looker")
            assert any("KiB behind" in text for text in _told(url, "ok"))
    finally:
        standby.close()


def test_nobody_at_the_address_is_one_line(own_postgres: Cluster) -> None:
    own_postgres.stop()
    (told,) = _told(own_postgres.url(), "mend")
    assert "Connection refused" in told
