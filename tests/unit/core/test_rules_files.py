"""Who may send a file along, and who may read it."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.core.model import Conv, Member
from mqtt_im.core.records import Message
from mqtt_im.core.rules.files import is_carried, is_over, may_read_file
from mqtt_im.protocol.errors import Refusal
from tests.support.uploads import MemoryUploads

from .world import World


@pytest.fixture
def world() -> World:
    return World(uploads=MemoryUploads({"a": "ann", "a2": "ann", "b": "bob"}), drop_blocked=True)


def readers(world: World, file: str) -> str:
    """The first letters of those who may read it, and `!` where a message carries it."""
    upload = world.state.upload(file)
    assert upload is not None
    found = "".join(name[0] for name in ("ann", "bob", "cat") if may_read_file(world.state, name, upload))
    return found + "!" * is_carried(world.state, upload)


def send(world: World, by: str, to: str, *files: str, **fields: Any) -> int:
    decision = world.ask(by, "send", to=to, body="", files=list(files), **fields)
    if decision.reply is not None:  # a repeat
        return int(decision.reply["seq"])
    (message,) = decision.records
    assert isinstance(message, Message)
    return message.seq


def test_a_file_is_its_owners_until_a_message_carries_it(world: World) -> None:
    assert readers(world, "a") == "a"
    send(world, "ann", "bob", "a")
    assert readers(world, "a") == "ab!"
    assert readers(world, "a2") == "a"


def test_who_reads_it_may_hand_it_on_and_nobody_else(world: World) -> None:
    for by, file in (("bob", "a"), ("cat", "a"), ("ann", "nothing")):
        with pytest.raises(Refusal) as refusal:
            send(world, by, "cat", file)
        assert refusal.value.code == "not_found"
    send(world, "ann", "bob", "a")
    with pytest.raises(Refusal):
        send(world, "cat", "ann", "a")
    send(world, "bob", "cat", "a")
    assert readers(world, "a") == "abc!"


def test_so_many_messages_carry_one_file_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.core.rules.files.MAX_CARRIERS", 3)
    for _ in range(3):
        send(world, "ann", "bob", "a")
    with pytest.raises(Refusal) as refusal:
        send(world, "ann", "bob", "a")
    assert refusal.value.code == "quota" and "upload it again" in refusal.value.message
    with pytest.raises(Refusal) as refusal:
        send(world, "cat", "ann", "a")
    assert refusal.value.code == "not_found"
    send(world, "ann", "bob", "a2")


def test_who_may_read_a_file_is_asked_once_for_a_conversation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask("ann", "group.create", id="g", group="#g", members=["bob"])
    for _ in range(50):
        send(world, "ann", "#g", "a")
    upload = world.state.upload("a")
    assert upload is not None
    asked: list[str] = []
    part = Conv.part

    def counted(conv: Conv, user: str) -> Member | None:
        asked.append(conv.name)
        return part(conv, user)

    monkeypatch.setattr(Conv, "part", counted)
    assert not may_read_file(world.state, "cat", upload)
    assert asked == ["#g"]


def test_who_may_read_a_file_is_not_asked_where_others_talk_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    send(world, "ann", "bob", "a")
    upload = world.state.upload("a")
    assert upload is not None

    def looked(*_: object) -> None:
        raise AssertionError("the name says already that cat is not in it")

    monkeypatch.setattr(type(world.state), "conv", looked)
    assert not may_read_file(world.state, "cat", upload)


def test_so_many_groups_have_one_file_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.core.rules.files.MAX_GROUPS", 2)
    for group in ("#one", "#two"):
        world.ask("ann", "group.create", id=group, group=group, members=["bob"])
        send(world, "ann", group, "a")
    with pytest.raises(Refusal) as refusal:
        send(world, "ann", "#one", "a")
    assert refusal.value.code == "quota" and "upload it again" in refusal.value.message


def test_a_message_is_over_for_a_file_when_it_is_there_without_it(world: World) -> None:
    seq = send(world, "ann", "bob", "a")
    assert not is_over(world.state, "a", "ann:bob", seq)
    assert not is_over(world.state, "a", "ann:bob", seq + 1) and not is_over(world.state, "a", "ann:cat", 1)  # it may still come
    world.ask("ann", "recall", id="r", conv="ann:bob", seq=seq)
    assert is_over(world.state, "a", "ann:bob", seq)


def test_it_goes_with_the_last_message_that_carries_it(world: World) -> None:
    first, second = send(world, "ann", "bob", "a"), send(world, "ann", "bob", "a")
    world.ask("ann", "recall", id="r", conv="ann:bob", seq=first)
    assert readers(world, "a") == "ab!"
    world.ask("ann", "recall", id="s", conv="ann:bob", seq=second)
    assert readers(world, "a") == ""
    with pytest.raises(Refusal):
        send(world, "ann", "bob", "a")


def test_what_was_dropped_is_not_the_blockers(world: World) -> None:
    world.ask("bob", "block", id="b", user="ann")
    send(world, "ann", "bob", "a")
    assert readers(world, "a") == "a!"


def test_a_repeat_names_the_same_files_also_when_they_are_gone(world: World) -> None:
    seq = send(world, "ann", "bob", "a", "a2", id="1")
    for _ in range(2):
        assert send(world, "ann", "bob", "a", "a2", id="1") == seq
        for other in (["a2", "a"], ["a"], []):
            with pytest.raises(Refusal) as refusal:
                send(world, "ann", "bob", *other, id="1")
            assert refusal.value.code == "conflict"
        if not world.state.amended(world.state.conv_for("ann:bob"), seq):
            world.ask("ann", "recall", id="r", conv="ann:bob", seq=seq)
