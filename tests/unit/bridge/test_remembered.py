"""What the bridge remembers is bounded by its bytes, and with little memory it is less (INV-16)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtt_im.bridge import claims, cursors, parking, searching
from mqtt_im.bridge.claims import Claims
from mqtt_im.bridge.lightening import Lightening
from mqtt_im.bridge.logins import limits, verdicts
from mqtt_im.bridge.logins.limits import LoginLimits
from mqtt_im.bridge.logins.verdicts import Verdicts
from mqtt_im.bridge.parking import Parking
from mqtt_im.bridge.pulling import Pulling
from mqtt_im.bridge.searching import Searching
from mqtt_im.core.entries import Entry
from mqtt_im.core.flights import FLIGHT_BYTES, USUAL_BYTES, DeliveryMemory, Flight, LargeFlight
from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.store.jobs.delivering import CursorsJob
from mqtt_im.store.queries.reach import Part, Place, Step
from mqtt_im.store.refusals import unavailable
from tests.support.bridge import BridgeWorld
from tests.unit.transport.harness import on_loop

HALF = Bounds(100 + (USUAL_MB - 100) // 2)


def test_packets_in_flight_weigh_something_though_their_items_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_BYTES", 200 * FLIGHT_BYTES)
    some = Parking()
    for number in range(10):
        some.park(("ann", f"d{number}"), {pos: Flight(pos, pos, pos, []) for pos in range(1, 65)}, {}, [])
    assert len(some.all()) == 3
    assert [some.knows(("ann", f"d{number}")) for number in (6, 7)] == [True, False], "what was sent to the others"


def test_packets_of_who_is_away_leave_room_for_large_ones_of_who_is_here() -> None:
    """Else who has many devices in kept sessions has everybody wait for each large packet's PUBACK, as long as these are kept."""
    bounds = Bounds(100)
    memory, some = DeliveryMemory(bounds.of(USUAL_BYTES)), Parking(bounds)
    for number in range(100):
        entry = Entry("ann", "pc", "ann:bob", 1, b"{", bytes(60_000), None)
        some.park(("bob", f"d{number}"), {1: LargeFlight(1, 1, 1, [(1, entry)], entry.size, memory)}, {}, [])
    assert some.all() and memory.bytes <= memory.most // 2


def test_with_little_memory_fewer_devices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_KNOWN", 20)
    some = Parking(HALF)
    for number in range(30):
        some.remember(("ann", f"d{number}"), number)
    assert [some.knows(("ann", f"d{number}")) for number in (19, 20)] == [False, True]


def test_with_little_memory_more_counts_as_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MAX_OFFERED", 20)
    usual, less = Claims(), Claims(HALF)
    for some in (usual, less):
        for pos in range(2, 14):
            some.offer(f"u{pos}", pos)
    assert usual.take_back("u2", 1) and not less.take_back("u2", 1)


def test_with_little_memory_fewer_passwords_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "MAX_REMEMBERED", 20)
    some = Verdicts(60, lambda: 0.0, HALF)
    for number in range(30):
        some.note(f"u{number}", some.digest(f"u{number}", b"right"), 1, right=True)
    remembered = [some.verdict(f"u{number}", some.digest(f"u{number}", b"right"), 1) for number in (19, 20)]
    assert remembered == [None, True]


def test_with_little_memory_fewer_addresses_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ENTRIES", 20)
    some = LoginLimits(1, 1_000, HALF)
    for number in range(30):
        some.failed(f"192.0.2.{number}", "", 0)
    assert [some.allows(f"192.0.2.{number}", "", 0) for number in (19, 20)] == [True, False]


@on_loop
async def test_what_is_not_kept_for_long_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "MAX_LEFT", 3)
    with BridgeWorld(tmp_path) as world:
        job = CursorsJob([], lambda _: None, [(f"u{number}", "d", True) for number in range(5)])
        job.refuse(unavailable())
        world.bridge.cursors._written(job)
        assert list(world.bridge.cursors._left) == [("u2", "d"), ("u3", "d"), ("u4", "d")]
        marks = {f"u0:v{number}": 1 for number in range(100)}
        for number in range(3_000):
            world.bridge.cursors._keep_failed((f"u{number}", "d"), 7, dict(marks))
        assert world.bridge.cursors._failed.bytes <= cursors.FAILED_BYTES
        assert (world.bridge.cursors.known("u0", "d"), world.bridge.cursors.known("u2999", "d")) == (0, 7)


@on_loop
async def test_what_users_may_search_is_forgotten_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was in and out of a group a hundred times has more to remember than who is in a hundred groups."""
    monkeypatch.setattr(searching, "KNOWN_BYTES", 40_000)
    spans = {"ann": 100, "ben": 1, "cat": 1}

    async def call(learn: Any, user: str) -> tuple[Step, float]:
        return Step([Part(f"#{user}", 0, 1, ((1, 2),) * spans[user])], Place(1, 0), done=True), 0.0

    ledger = SimpleNamespace(call=call)
    bridge: Any = SimpleNamespace(settings=SimpleNamespace(memory_mb=USUAL_MB), ledger=ledger)
    some = Searching(bridge, cast(Any, None))
    for user in ("ann", "ben", "ann", "cat"):
        await some._everything(cast(Any, SimpleNamespace(user=user, link=SimpleNamespace(charge=lambda _: None))))
    assert set(some._known) == {"ann", "ben", "cat"}
    assert some._bytes == sum(known.reach.bytes for known in some._known.values())
    spans["cat"] = 300
    await some._everything(cast(Any, SimpleNamespace(user="cat", link=SimpleNamespace(charge=lambda _: None))))
    assert "ben" not in some._known and some._bytes <= 40_000


@on_loop
async def test_large_groups_that_are_none_any_more_are_forgotten() -> None:
    async def call(_: Any) -> dict[str, int]:
        return {"#one": 1}

    bridge: Any = SimpleNamespace(ledger=SimpleNamespace(call=call))
    some = Pulling(bridge)
    some._taken = {"#one": 1, "#gone": 5}
    await some.sweep()
    assert some._taken == {"#one": 1}


def test_who_is_gone_is_not_kept_for_a_wider_window() -> None:
    memory = DeliveryMemory(100)
    there, gone = (SimpleNamespace(link=SimpleNamespace(closed=closed), delivery=None) for closed in (False, True))
    some = Lightening(list, memory, 64, 1, cast(Any, None), cast(Any, None))
    some._narrow = cast(Any, [there, gone])
    memory.came = 100
    list(some._look())
    assert gone not in some._narrow
