"""docs/webhooks.md: pushes for users who are away, and events, over a real server and a real HTTP receiver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mqtt_im.testing import ServerProcess, Value
from tests.support.im import ImClient, direct
from tests.support.raw import eventually
from tests.support.receiver import SECRET, Receiver
from tests.system.conftest import Clients, Name, running

FAR = 4_102_444_800_000


def configuration(receiver: Receiver, **more: Value) -> dict[str, Value]:
    return {
        "push.url": receiver.url,
        "push.secret": SECRET,
        "push.delay_s": 0.1,
        "push.coalesce_s": 0.1,
        "hooks.url": receiver.url,
        "hooks.secret": SECRET,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(receiver: Receiver) -> Iterator[ServerProcess]:
    yield from running(configuration(receiver))


@pytest.fixture
def own_receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def own_server(own_receiver: Receiver, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    yield from running(configuration(own_receiver, **getattr(request, "param", {})))


def metric(server: ServerProcess, name: str) -> float:
    lines = server.get("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"mqtt_im_{name}"))


# Pushes


def test_a_user_who_was_never_connected_is_pushed(im: Clients, name: Name, receiver: Receiver) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    sent = alice.say(bob, "not to be seen", push={"title": "Alice", "n": [1, {"a": None}]})
    push = receiver.event("push", user=bob)
    assert push["count"] == 1
    (conv,) = push["conversations"]
    assert conv == {
        "conv": sent["conv"], "count": 1, "seq": 1, "from": alice.user, "ts": sent["ts"],
        "push": {"title": "Alice", "n": [1, {"a": None}]},
    }  # fmt: skip
    assert all(webhook.signed for webhook in receiver.received)
    assert not any(b"not to be seen" in webhook.body for webhook in receiver.received)


def test_who_is_connected_or_has_sent_it_is_not_pushed(im: Clients, name: Name, receiver: Receiver) -> None:
    alice, bob, carol = im.online(name("alice")), im.online(name("bob")), name("carol")
    alice.say(bob.user, "to bob")
    bob.wait("msg", body="to bob")
    alice.say(carol, "to carol")
    bob.flush()
    bob.close()
    receiver.event("push", user=carol)
    alice.say(bob.user, "to bob, who has gone")
    push = receiver.event("push", user=bob.user)
    assert push["count"] == 1
    assert push["conversations"][0]["seq"] == 2
    assert receiver.of("push", user=alice.user) == []


def test_many_messages_are_few_pushes_that_tell_each_once(im: Clients, name: Name, receiver: Receiver) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    for number in range(20):
        alice.request("send", to=bob, body=number)
    alice.received(20)
    receiver.until(lambda _: sum(push["count"] for push in receiver.of("push", user=bob)) >= 20, "push of the last message")
    pushes = receiver.of("push", user=bob)
    assert sum(push["count"] for push in pushes) == 20
    assert len(pushes) < 20


def test_mute_and_mentions(im: Clients, name: Name, receiver: Receiver) -> None:
    alice, bob, carol = im.online(name("alice")), im.online(name("bob")), name("carol")
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg", seq=1)
    bob.must("mute", conv=conv, until=FAR)
    bob.flush()
    bob.close()
    alice.say(bob.user, "muted")
    alice.say(carol, "later")
    receiver.event("push", user=carol)
    assert receiver.of("push", user=bob.user) == []
    alice.say(bob.user, "mentioned", mentions=[bob.user])
    push = receiver.event("push", user=bob.user)
    assert (push["count"], push["conversations"][0]["seq"], push["conversations"][0]["mentioned"]) == (1, 3, True)


@pytest.mark.parametrize("own_server", [{"hooks__url": ""}], indirect=True)
def test_a_push_that_fails_is_repeated(own_im: Clients, own_receiver: Receiver) -> None:
    own_receiver.statuses.extend([500, 404])
    own_receiver.headers["Content-Length"] = "0"
    own_im.online("alice").say("bob", "x")
    own_receiver.until(lambda received: len(received) == 3, "two repeats")
    first, *repeats = own_receiver.of("push", user="bob")
    assert repeats == [first, first]


@pytest.mark.parametrize("own_server", [{"push__max_attempts": 1, "hooks__url": ""}], indirect=True)
def test_what_was_put_aside_is_counted_listed_and_sent_again(own_im: Clients, own_receiver: Receiver) -> None:
    server = own_im.server
    own_receiver.statuses.append(400)
    own_receiver.headers["Content-Length"] = "0"
    own_im.online("alice").say("bob", "x")
    eventually(lambda: metric(server, "webhooks_dead") == 1, "the dead push in the metrics")
    listed = server.command("hooks", "list")
    assert (listed.returncode, listed.stdout.split("\t")) == (0, ["push", "bob", "1", "status 400\n"])
    assert server.command("hooks", "retry").returncode == 0
    own_receiver.until(lambda _: len(own_receiver.of("push", user="bob")) == 2, "the push again")
    eventually(lambda: metric(server, "webhooks_dead") == metric(server, "webhooks_waiting") == 0, "an empty outbox")
    assert server.command("hooks", "list").stdout == ""


# Kills


def test_a_kill_while_the_push_is_under_way_loses_nothing(own_im: Clients, own_receiver: Receiver) -> None:
    own_receiver.hold.set()
    own_im.online("alice").say("bob", "x")
    first = own_receiver.event("push", user="bob")
    own_im.server.kill()
    own_receiver.hold.clear()
    own_im.server.start()
    own_receiver.until(lambda _: len(own_receiver.of("push", user="bob")) == 2, "the push again")
    assert own_receiver.of("push", user="bob")[1]["id"] == first["id"]
    eventually(lambda: metric(own_im.server, "webhooks_waiting") == 0, "an empty outbox")


@pytest.mark.parametrize("own_server", [{"push__delay_s": 3600}], indirect=True)
def test_a_kill_before_the_message_was_looked_at_loses_nothing(own_im: Clients, own_receiver: Receiver) -> None:
    own_im.online("alice").say("bob", "x")
    own_im.server.kill()
    own_im.server.configure({"push.delay_s": 0})
    own_im.server.start()
    assert own_receiver.event("push", user="bob")["count"] == 1


def test_a_receiver_that_comes_later_gets_everything(own_im: Clients, own_receiver: Receiver) -> None:
    port = own_receiver.port
    own_receiver.close()
    alice = own_im.online("alice")
    for number in range(30):
        alice.request("send", to="bob", body=number)
    alice.received(30)
    own_im.server.restart(kill=True)
    with Receiver(port) as later:
        later.until(lambda _: len(later.of("message")) == 30, "all messages")
        assert later.event("push", user="bob")["count"] == 30
        assert sorted(event["msg"]["seq"] for event in later.of("message")) == list(range(1, 31))


def test_messages_flow_while_the_receiver_hangs(own_im: Clients, own_receiver: Receiver) -> None:
    own_receiver.hold.set()
    alice, bob = own_im.online("alice"), own_im.online("bob")
    alice.say("carol", "x")
    own_receiver.event("push", user="carol")
    for number in range(300):
        alice.request("send", to="bob", body=number)
    alice.received(301)
    bob.received(300)
    assert [item["body"] for item in bob.items] == list(range(300))
    own_receiver.hold.clear()
    own_receiver.until(lambda _: len(own_receiver.of("message")) == 301, "all messages")


def test_a_server_stops_in_good_order_while_the_receiver_hangs(own_im: Clients, own_receiver: Receiver) -> None:
    own_receiver.hold.set()
    own_im.online("alice").say("bob", "x")
    own_receiver.event("push", user="bob")
    assert own_im.server.stop() == 0
    own_receiver.hold.clear()
    own_im.server.start()
    own_receiver.until(lambda _: len(own_receiver.of("push", user="bob")) == 2, "the push again")


# Events


def test_messages_are_events_in_the_order_of_their_conversation(im: Clients, name: Name, receiver: Receiver) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = direct(alice.user, bob.user)
    for number in range(10):
        alice.request("send", to=bob.user, body=number, id=f"{alice.user}-{number}")

    def mine() -> list[int]:
        return [event["msg"]["seq"] for event in receiver.of("message") if event["msg"]["conv"] == conv]

    receiver.until(lambda _: len(mine()) == 10, "ten events")
    assert mine() == list(range(1, 11))


def test_group_changes_are_events(im: Clients, name: Name, receiver: Receiver) -> None:
    alice, group = im.online(name("alice")), name("#g")
    alice.must("group.create", group=group, name="Team", members=[name("bob")])

    def mine() -> list[str]:
        return [event["msg"]["system"]["event"] for event in receiver.of("group") if event["msg"]["conv"] == group]

    receiver.until(lambda _: mine() == ["group.create"], "the event of the new group")


def test_presence_is_an_event(im: Clients, name: Name, receiver: Receiver) -> None:
    alice = im.online(name("alice"))
    receiver.event("presence", user=alice.user, state="online")
    alice.close()
    assert receiver.event("presence", user=alice.user, state="offline")["last_seen"] > 0


def test_without_a_receiver_there_is_no_outbox(own_im: Clients) -> None:
    """And where there was one, what waited in it is not sent when a receiver is named again."""
    server = own_im.server
    assert (server.data_dir / "hooks.db").exists()
    server.stop()
    (server.data_dir / "hooks.db").unlink()
    server.configure({"push.url": "", "hooks.url": ""})
    server.start()
    own_im.online("alice").say("bob", "x")
    server.stop()
    assert not (server.data_dir / "hooks.db").exists()
    answer = server.command("hooks", "list")
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("own_server", [{"auth__mode": "accounts"}], indirect=True)
def test_what_waits_outlives_a_command_that_works_without_the_server(own_server: ServerProcess, own_receiver: Receiver) -> None:
    for name in ("alice", "bob", "carol"):
        assert own_server.command("user", "add", name, "--password-stdin", stdin="correct horse\n").returncode == 0
    own_receiver.statuses.extend([500] * 20)
    with ImClient(own_server.mqtt_port, "alice", "phone").sign_in(password="correct horse").listen() as alice:
        alice.say("bob", "x")
    own_receiver.event("message")
    assert own_server.stop() == 0
    assert own_server.command("user", "remove", "carol", "--erase").returncode == 0
    own_receiver.statuses.clear()
    before = len(own_receiver.received)
    own_server.start()
    own_receiver.until(lambda received: [each for each in received[before:] if each.data["event"] == "message"], "the message")
