"""What clients do not read counts as held, beyond what is free for each user (INV-16)."""

from __future__ import annotations

from mqtt_im.transport.embedded.unread import FREE, Unread


class Connection:
    def __init__(self, party: str) -> None:
        self.party = party


def test_so_much_is_free_for_each_user_and_not_for_each_connection() -> None:
    unread = Unread()
    mallory = [Connection("mallory") for _ in range(16)]
    counted = [unread.changed(connection, FREE // 2) for connection in mallory]
    assert counted == [0, 0] + [FREE // 2] * 14
    assert unread.changed(Connection("alice"), FREE) == 0
    assert unread.changed(Connection("bob"), FREE + 1_000) == 1_000


def test_what_was_read_is_free_again() -> None:
    unread = Unread()
    first, second = Connection("ann"), Connection("ann")
    unread.changed(first, FREE)
    assert unread.changed(second, 1_000) == 1_000
    assert unread.changed(first, FREE - 1_000) == 0, "what waits for the other one is counted there"
    assert unread.changed(first, 0) == unread.changed(second, 1_000) == 0
    unread.changed(second, 0)
    assert not unread._parties and not unread._waiting


def test_it_counts_for_whom_it_waited_also_where_that_one_has_logged_in_since() -> None:
    unread = Unread()
    connection = Connection("192.0.2.1")
    unread.changed(connection, FREE + 10)
    connection.party = "ann"
    assert unread.changed(connection, FREE + 20) == 20
    unread.changed(connection, 0)
    assert not unread._parties
