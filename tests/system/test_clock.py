"""PROTOCOL.md §3, §7: what ends after a while ends by real time, while the server's clock is set forward and back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mqtt_im.testing import ServerProcess, Value
from tests.support import packets5
from tests.support.im5 import Im5
from tests.support.jumps import WallClock
from tests.support.raw import eventually
from tests.support.receiver import SECRET, Receiver
from tests.system.conftest import Clients, Name, verified

HOUR = 3600
ABOUT_MS = 1000
"""The server's two times are told apart where they differ by more than half a second."""
JUMPS = pytest.mark.parametrize("jump", [-HOUR, HOUR])
"""Seconds by which the clock is set."""


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    return WallClock(tmp_path_factory.mktemp("wall") / "ahead")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(wall: WallClock, receiver: Receiver) -> Iterator[ServerProcess]:
    config: dict[str, Value] = {
        "mqtt.plain_topics": ["plain/#"],
        "messaging.edit_window_s": 4,
        "push.url": receiver.url,
        "push.secret": SECRET,
        "push.delay_s": 0.5,
    }
    with ServerProcess(config, environment=wall.environment) as server:
        yield server
        server.stop()
        verified(server)


@pytest.fixture(autouse=True)
def right_again(wall: WallClock) -> Iterator[None]:
    yield
    wall.set(0)


def wait_until(end: float) -> None:
    """Until so much of this process's own time has passed."""
    eventually(lambda: time.monotonic() >= end, "real time to pass")


@pytest.mark.parametrize("jump", [-HOUR, -2, HOUR])
@pytest.mark.parametrize("restart", [None, "stop", "kill"])
def test_a_command_lives_as_long_as_it_says(
    im: Clients, name: Name, server: ServerProcess, wall: WallClock, jump: int, restart: str | None
) -> None:
    """Whether the clock is set before it is sent, or after; over a restart too, where it may end too early, but not too late."""
    alice, bob = im.online(name("alice")), name("bob")
    before = time.monotonic()
    alice.say(bob, "before the jump", ttl=3)
    began = time.monotonic()
    if restart is not None:
        server.stop() if restart == "stop" else server.kill()
    wall.set(jump)
    if restart is not None:
        server.start()
        alice = im.online(name("alice"))
    alice.say(bob, "after the jump", ttl=600)
    if jump < 0 or restart is None:
        early = [item.get("body", item["op"]) for item in im.online(bob, "early").must("sync", after=0)["items"]]
        assert early[1] == "after the jump"
        assert early[0] == "before the jump" or time.monotonic() > before + 3
    wait_until(began + 3.2)
    late = im.online(bob, "late").must("sync", after=0)["items"]
    assert [item["op"] for item in late] == ["void", "msg"]


@JUMPS
def test_a_message_can_be_changed_as_long_as_the_window_is_open(im: Clients, name: Name, wall: WallClock, jump: int) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    before = time.monotonic()
    conv = alice.say(bob, "one")["conv"]
    began = time.monotonic()
    wall.set(jump)
    alice.say(bob, "two")
    assert alice.ask("edit", conv=conv, seq=1, body="won").op == "ok" or time.monotonic() > before + 4
    wait_until(began + 4.3)
    alice.refused("edit", "forbidden", conv=conv, seq=1, body="gone")


@JUMPS
def test_last_seen_is_when_it_was(im: Clients, name: Name, server: ServerProcess, wall: WallClock, jump: int) -> None:
    wall.set(jump)
    before = time.time() * 1000
    phone = im.online(name("alice"))
    phone.disconnect()
    eventually(lambda: not devices(im, name)["phone"]["online"], "the phone to be gone")
    wall.set(0)
    for restart in (False, True):
        if restart:
            server.restart(kill=True)
        assert before - ABOUT_MS <= devices(im, name)["phone"]["last_seen"] <= time.time() * 1000 + ABOUT_MS


def devices(im: Clients, name: Name) -> dict[str, dict[str, int]]:
    asking = im.online(name("alice"), "asking")
    found = {device["device"]: device for device in asking.must("devices")["devices"]}
    asking.close()
    return found


@pytest.mark.parametrize(("jump", "restart"), [(-HOUR, False), (HOUR, False), (-HOUR, True)])
def test_plain_messages_and_sessions_end_by_real_time(
    name: Name, server: ServerProcess, wall: WallClock, jump: int, restart: bool
) -> None:
    user = name("alice")
    topic = f"plain/{user}"
    for client_id, kept_s in (("short", 3), ("long", 600)):
        with Im5(server.mqtt_port, user, client_id, given={packets5.SESSION_EXPIRY: kept_s}) as client:
            client.subscribe((topic, 1))
            client.disconnect()
    with Im5(server.mqtt_port, user, "sender") as sender:
        for payload, lives_s in ((b"gone", 3), (b"stays", 600)):
            sender.publish(payload, topic=topic, given={packets5.EXPIRY: lives_s})
    began = time.monotonic()
    if restart:
        server.kill()
        wall.set(jump)
        server.start()
    else:
        wall.set(jump)
    wait_until(began + 4.2)
    for client_id, present, payloads in (("long", True, [b"stays"]), ("short", False, [])):
        with Im5(server.mqtt_port, user, client_id, clean=False, given={packets5.SESSION_EXPIRY: 600}) as client:
            client.settle()
            assert client.connack.present is present
            assert [message.payload for message in client.came] == payloads


@JUMPS
def test_a_push_becomes_due(im: Clients, name: Name, wall: WallClock, receiver: Receiver, jump: int) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    alice.say(bob, "one")
    wall.set(jump)
    receiver.event("push", user=bob)
