"""Webhooks and Web Push of several nodes: each thing is told by one of them, and another one goes on where one is gone."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.faults import assert_no_fault
from tests.support.nodes import Nodes
from tests.support.postgres import Cluster
from tests.support.push_service import BrowserKeys, PushService, verify_vapid
from tests.support.raw import eventually
from tests.support.receiver import SECRET, Receiver
from tests.support.web import Web

pytestmark = pytest.mark.slow
SENDS = "webhooks: this node sends them"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def start(nodes: Nodes, receiver: Receiver, count: int) -> None:
    hooks = {"hooks.url": receiver.url, "hooks.secret": SECRET}
    push = {"push.url": receiver.url, "push.secret": SECRET, "push.delay_s": 0.2, "push.coalesce_s": 0.2}
    for _ in range(count):
        nodes.start(**hooks, **push)
    eventually(lambda: any(SENDS in node.log() for node in nodes.all), "one of them sends")


def sender(nodes: Nodes, before: ServerProcess | None = None) -> ServerProcess:
    """The node that sends webhooks, which is another one than before."""
    found: list[ServerProcess] = []

    def look() -> bool:
        found.extend(node for node in nodes.all if node is not before and SENDS in node.log())
        return bool(found)

    eventually(look, "a node that sends", timeout_s=20)
    return found[0]


def told(receiver: Receiver, conv: str) -> list[dict[str, Any]]:
    """Messages of a conversation without repeats, which have the same id."""
    found = {event["id"]: event["msg"] for event in receiver.of("message") if event["msg"]["conv"] == conv}
    return list(found.values())


def test_each_thing_is_told_by_one_node_in_order(nodes: Nodes, receiver: Receiver) -> None:
    start(nodes, receiver, 3)
    alice, bob = nodes.online(0, "alice"), nodes.online(1, "bob")
    for number in range(30):
        alice.say("bob", number)
        bob.say("alice", -number)
    alice.say("carol", "wake up")
    receiver.until(lambda _: len(receiver.of("message")) >= 61, "all events")
    receiver.event("push", user="carol")
    seqs = [event["msg"]["seq"] for event in receiver.of("message") if event["msg"]["conv"] == "alice:bob"]
    assert seqs == list(range(1, 61))
    assert sum(SENDS in node.log() for node in nodes.all) == 1
    # Both are connected, each to another node, and one of them to none that sends.
    assert not receiver.of("push", user="alice") and not receiver.of("push", user="bob")
    bob.until(lambda: len(bob.items) >= 60, "all items")
    bob.flush()
    bob.disconnect()
    receiver.event("presence", user="bob", state="offline")
    assert len(receiver.of("presence", user="bob", state="online")) == 1
    alice.say("bob", "are you there?")
    assert receiver.event("push", user="bob")["count"] == 1


def test_another_node_goes_on_where_one_was_killed(nodes: Nodes, receiver: Receiver) -> None:
    start(nodes, receiver, 2)
    first = sender(nodes)
    other = nodes.all.index(first) ^ 1
    alice = nodes.online(other, "alice")
    for number in range(10):
        alice.say("bob", number)
    receiver.until(lambda _: len(told(receiver, "alice:bob")) >= 10, "the first ones")
    receiver.hold.set()  # what is under way has no answer
    for number in range(10, 20):
        alice.say("bob", number)
    first.kill()
    receiver.hold.clear()
    sender(nodes, before=first)
    for number in range(20, 30):
        alice.say("bob", number)
    receiver.until(lambda _: len(told(receiver, "alice:bob")) >= 30, "all of them")
    assert [message["seq"] for message in told(receiver, "alice:bob")] == list(range(1, 31))
    receiver.until(lambda _: receiver.of("push", user="bob"), "a push")


def test_a_frozen_node_tells_nothing_more(nodes: Nodes, receiver: Receiver) -> None:
    start(nodes, receiver, 2)
    first = sender(nodes)
    alice = nodes.online(nodes.all.index(first) ^ 1, "alice")
    alice.say("bob", 0)
    receiver.event("message")
    first.signal(signal.SIGSTOP)
    try:
        for number in range(1, 10):
            alice.say("bob", number)
        sender(nodes, before=first)
        receiver.until(lambda _: len(told(receiver, "alice:bob")) >= 10, "all of them")
    finally:
        before = len(receiver.of("message"))
        first.signal(signal.SIGCONT)
    eventually(lambda: "does not send them any more" in first.log(), "it has noticed")
    alice.say("bob", 10)
    receiver.until(lambda _: len(told(receiver, "alice:bob")) >= 11, "the last one")
    assert [event["msg"]["seq"] for event in receiver.of("message")[before:]] == [11]
    assert [message["seq"] for message in told(receiver, "alice:bob")] == list(range(1, 12))
    eventually(first.ready, "it is a node again", timeout_s=20)


def test_a_database_that_is_killed_loses_no_event(own_postgres: Cluster, receiver: Receiver) -> None:
    with ExitStack() as undo:
        nodes = Nodes(own_postgres.url(own_postgres.create()), undo)
        start(nodes, receiver, 2)
        alice = nodes.online(0, "alice")
        receiver.hold.set()
        for number in range(20):
            alice.say("bob", number)
        own_postgres.kill()
        receiver.hold.clear()
        own_postgres.start()
        for node in nodes.all:
            eventually(node.ready, "ready again", timeout_s=20)
        receiver.until(lambda _: len(told(receiver, "alice:bob")) >= 20, "all of them")
        assert [message["seq"] for message in told(receiver, "alice:bob")] == list(range(1, 21))
        for node in nodes.all:
            assert_no_fault(node.log())


def test_browsers_subscribe_at_one_node_and_are_told_by_any(nodes: Nodes) -> None:
    with PushService() as service:
        for _ in range(2):
            nodes.start(
                **{
                    "webpush.contact": "mailto:ops@example.org",
                    "webpush.services": [service.origin],
                    "webpush.delay_s": 0,
                    "webpush.coalesce_s": 0,
                }
            )
        first = sender(nodes)
        other = nodes.all[nodes.all.index(first) ^ 1]
        keys = BrowserKeys()
        nodes.online(nodes.all.index(other), "bob", "web").disconnect()
        with Web(other.http_port) as bob:
            subscription = {"endpoint": f"{service.origin}/bob", "keys": keys.told, "expirationTime": None}
            bob.login("bob").must("push.subscribe", device="web", subscription=subscription)
            public = bob.ask("GET", "/web/server.json").data["push_key"]
        nodes.online(0, "alice").say("bob", "Hello")
        _, headers, body = service.requests.get(timeout=20)
        verify_vapid(headers["authorization"], service.origin, public, time.time())
        assert json.loads(keys.decrypt(body))["conversations"][0]["body"] == "Hello"
