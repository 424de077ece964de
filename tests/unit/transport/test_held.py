"""What has come of HTTP requests that are not answered: who gives way, and who does not."""

from __future__ import annotations

from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.transport.held import USUAL_BYTES, USUAL_SMALL_BYTES, Held

KB = 1024


class Connection:
    """Holds what it is told to."""

    def __init__(self, party: str) -> None:
        self.party = party
        self.held = 0

    def hold(self, held: Held[Connection], size: int) -> list[Connection]:
        self.held += size
        return list(held.changed(self, size))


def filled(held: Held[Connection], party: str, count: int) -> list[Connection]:
    """So many connections of one party, with 200 KB each, for whom there is room."""
    made = [Connection(party) for _ in range(count)]
    for connection in made:
        assert connection.hold(held, 200 * KB) == []
    return made


def test_the_sum_is_a_share_of_the_memory() -> None:
    assert Held[Connection](Bounds(USUAL_MB)).most == USUAL_BYTES
    assert Held[Connection](Bounds(200)).most == USUAL_BYTES // 3
    assert Held[Connection](Bounds(100)).small == 2 * KB, "a browser's request is taken in any case"


def test_who_has_most_gives_way_to_who_comes() -> None:
    held = Held[Connection](Bounds(USUAL_MB))
    few = filled(held, "few", 3)
    many = filled(held, "many", USUAL_BYTES // (200 * KB) - 3)
    comes = Connection("comes")
    going = comes.hold(held, 200 * KB)
    assert going and going == many[: len(going)], "the longest held ones of the party that has most"
    for connection in going:
        assert connection.hold(held, -connection.held) == []
    assert 0.7 * USUAL_BYTES < held.bytes <= 0.75 * USUAL_BYTES
    assert comes.held and all(connection.held for connection in few)


def test_parties_with_the_same_give_way_in_turns() -> None:
    held = Held[Connection](Bounds(USUAL_MB))
    count = USUAL_BYTES // (200 * KB) // 2
    filled(held, "one", count), filled(held, "other", count)
    going = Connection("comes").hold(held, 400 * KB)
    of = [connection.party for connection in going]
    assert abs(of.count("one") - of.count("other")) <= 1


def test_who_has_little_gives_way_when_nobody_has_more() -> None:
    held = Held[Connection](Bounds(USUAL_MB))
    small = [Connection("many") for _ in range(USUAL_BYTES // USUAL_SMALL_BYTES)]
    other = Connection("other")
    assert other.hold(held, USUAL_SMALL_BYTES // 2) == []
    assert not any(connection.hold(held, USUAL_SMALL_BYTES) for connection in small[:-1])
    going = small[-1].hold(held, USUAL_SMALL_BYTES)
    assert going == small[: len(going)], "the longest held ones of the party that has most"
    for connection in going:
        assert connection.hold(held, -connection.held) == []
    assert 0.7 * USUAL_BYTES < held.bytes <= 0.75 * USUAL_BYTES and other.held


def test_what_has_gone_is_not_asked_to_go_again() -> None:
    held = Held[Connection](Bounds(USUAL_MB))
    many = filled(held, "many", USUAL_BYTES // (200 * KB))
    for connection in many:
        connection.hold(held, -connection.held)
    assert held.bytes == 0
    assert Connection("comes").hold(held, 200 * KB) == []


def test_one_is_given_less_where_much_is_held_and_a_little_in_any_case() -> None:
    held: Held[Connection] = Held(Bounds(USUAL_MB))
    assert held.share(1000, 10) == 1000
    for held.bytes in range(0, USUAL_BYTES, 100_000):
        assert held.bytes + held.share(1 << 20, 10) <= USUAL_BYTES // 2 + 10 or held.share(1 << 20, 10) == 10
    assert held.share(1 << 20, 10) == 10
