"""What concerns a user alone: cursors and marks, which only grow (INV-15), settings, devices."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.core.model import Device
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import device_of

from .world import GHOST, World


def reached(count: int = 3) -> World:
    """bob's device `tel`, at 0, with items from ann."""
    world = World()
    world.ask("bob", "hello")
    for number in range(count):
        world.ask("ann", "send", to="bob", body=number)
    return world


def device(world: World, user: str = "bob", name: str = "tel") -> Device:
    found = world.state.device(user, name)
    assert found is not None
    return found


def delivered(world: World, user: str = "bob", conv: str = "ann:bob") -> int:
    return world.state.conv_for(conv).members[user].delivered


# Registration.


def test_the_first_device_of_a_user_starts_at_0_and_every_further_one_at_the_head() -> None:
    world = World()
    world.ask("ann", "send", to="bob", body="before bob ever came")
    world.ask("bob", "hello", "tel")
    world.ask("bob", "hello", "pc")
    assert (device(world).cursor, device(world, name="pc").cursor) == (0, 1)
    assert world.state.user("bob").acked == 0, "where a device begins says nothing of what was offered"
    for name in ("tel", "pc"):
        world.ask("bob", "device.forget", id="1", device=name)
    world.ask("bob", "hello", "new")
    assert device(world, name="new").cursor == 1, "so it is also after the only device was forgotten"


def test_devices_of_a_user_are_bounded() -> None:
    world = World(quota_devices=1)
    world.ask("bob", "hello")
    world.ask("ann", "hello")
    assert world.refused("bob", "hello", "pc") == "quota"
    world.ask("bob", "hello")
    world.ask("bob", "device.forget", id="1", device="tel")
    world.ask("bob", "hello", "pc")


def test_a_hello_that_says_nothing_new_changes_nothing() -> None:
    world = reached()
    world.ask("bob", "hello", after=2, n=4, ack="app")
    before = world.log()
    world.ask("bob", "hello", after=2, n=4, ack="app")
    world.ask("bob", "hello", codec="msgpack", batch=True)
    assert world.log() == before


def test_hello_moves_the_cursor_forward_and_back_and_receipts_only_grow() -> None:
    world = reached()
    world.ask("bob", "hello", after=2)
    assert (device(world).cursor, delivered(world), world.state.user("bob").acked) == (2, 2, 2)
    world.ask("bob", "hello", after=1)
    assert (device(world).cursor, delivered(world), world.state.user("bob").acked) == (1, 2, 2)


def test_a_new_device_may_say_at_once_where_it_stands() -> None:
    world = reached()
    world.ask("bob", "hello", "pc", after=1, n=7, ack="app")
    pc = device(world, name="pc")
    assert (pc.cursor, pc.n, pc.app) == (1, 7, True)
    world.ask("bob", "hello", "pc", ack="transport")
    assert (pc.cursor, pc.n, pc.app) == (1, 7, False)


def test_hello_beyond_the_head_or_below_the_floor() -> None:
    world = reached()
    world.state.user("bob").floor = 2
    assert world.refused("bob", "hello", after=4) == world.refused("bob", "hello", after=1) == "bad_field"
    assert world.refused("bob", "hello", "pc", after=4) == "bad_field"
    assert world.state.device("bob", "pc") is None
    world.ask("bob", "hello", after=2)


def test_the_asking_device_is_as_new_where_it_is_not_registered() -> None:
    world = reached()
    world.ask("bob", "ack", pos=2)
    assert device_of(world.state, Who("bob", "tel", 0)).cursor == 2
    assert device_of(world.state, Who("bob", "pc", 0)).cursor == 0


# `ack`.


def test_ack_moves_the_cursor_forward_alone() -> None:
    world = reached()
    world.ask("bob", "ack", pos=2)
    before = world.log()
    for pos in (2, 1, 0):
        assert world.ask("bob", "ack", pos=pos).records == []
    assert world.refused("bob", "ack", pos=4) == "bad_field"
    assert world.log() == before
    assert (device(world).cursor, delivered(world)) == (2, 2)


def test_ack_of_a_device_that_only_publishes_moves_nothing() -> None:
    world = reached()
    assert world.ask("bob", "ack", "sensor", pos=1).records == []
    assert world.state.device("bob", "sensor") is None


def test_what_another_device_had_delivered_is_not_told_again() -> None:
    world = reached()
    world.ask("bob", "hello", "pc", after=0)
    world.ask("bob", "ack", pos=3)
    [record] = world.ask("bob", "ack", "pc", pos=2).records
    assert record.moves == [("bob", "pc", 2, [])]  # type: ignore[union-attr]
    assert delivered(world) == 3


# `read`.


def test_the_read_mark_only_grows() -> None:
    world = reached()
    assert world.ask("bob", "read", conv="ann:bob", seq=2).reply is None
    for seq in (2, 1):
        assert world.ask("bob", "read", conv="ann:bob", seq=seq).records == []
    assert world.refused("bob", "read", conv="ann:bob", seq=4) == "bad_field"
    assert world.state.conv_for("ann:bob").members["bob"].read == 2


def test_a_conversation_may_be_muted_before_its_first_message() -> None:
    world = reached()
    assert world.refused("cat", "read", conv="bob:cat", seq=1) == "not_member"
    assert world.reply("cat", "mute", id="1", conv="bob:cat", until=5) == {"op": "ok", "id": "1"}
    assert world.state.conv("bob:cat") is None


@pytest.mark.parametrize("conv", ["ann:bob", "#g", "#none"])
def test_marks_and_mutes_are_for_members(conv: str) -> None:
    world = reached()
    world.group("ann", "bob")
    assert world.refused("cat", "read", conv=conv, seq=1) == "not_member"
    assert world.refused("cat", "mute", id="1", conv=conv, until=5) == "not_member"


# Settings.


def test_mute_until_and_its_end() -> None:
    world = reached()
    assert world.reply("bob", "mute", id="1", conv="ann:bob", until=5) == {"op": "ok", "id": "1"}
    assert world.state.user("bob").mutes == {"ann:bob": 5}
    for _ in range(2):
        world.ask("bob", "mute", id="1", conv="ann:bob", until=0)
    assert world.state.user("bob").mutes == {}


@pytest.mark.parametrize(
    ("asked", "records"),
    [({}, 0), ({"presence": True}, 0), ({"presence": False}, 1), ({"presence": False, "read_receipts": False}, 2)],
    ids=str,
)
def test_settings_answer_with_both_as_they_are_now(asked: dict[str, Any], records: int) -> None:
    world = World()
    now = {"presence": True, "read_receipts": True, **asked}
    decision = world.ask("bob", "settings", id="1", **asked)
    assert (decision.reply, len(decision.records)) == ({"op": "ok", "id": "1", **now}, records)
    assert world.reply("bob", "settings", id="2") == {"op": "ok", "id": "2", **now}


def test_blocks_repeat_harmlessly() -> None:
    world = World()
    for op, blocked in (("block", {"ann"}), ("unblock", set())):
        assert len(world.ask("bob", op, id="1", user="ann").records) == 1
        assert world.ask("bob", op, id="1", user="ann").records == []
        assert world.state.user("bob").blocks == blocked


def test_whom_one_can_t_block() -> None:
    world = World()
    assert world.refused("bob", "block", id="1", user="bob") == "bad_field"
    assert world.refused("bob", "block", id="1", user=GHOST) == "not_found"
    assert world.reply("bob", "unblock", id="1", user=GHOST) == {"op": "ok", "id": "1"}


def test_a_forgotten_device_is_gone_with_its_cursor_and_its_counter() -> None:
    world = reached()
    world.ask("bob", "hello", n=5, after=2)
    assert world.reply("bob", "device.forget", "pc", id="1", device="tel") == {"op": "ok", "id": "1"}
    assert world.ask("bob", "device.forget", "pc", id="1", device="tel").records == []
    world.ask("bob", "hello")
    assert (device(world).n, device(world).cursor) == (0, 3)
