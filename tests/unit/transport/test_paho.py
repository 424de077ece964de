"""The client library that most of the world uses, over TCP and WebSocket.

The first tests are the scenarios of Eclipse's interoperability suite for clients (paho.mqtt.testing), told anew, under
its names: basic, retained messages, zero-length client id, offline message queueing, overlapping subscriptions,
keepalive, redelivery on reconnect, subscribe failure, unsubscribe, dollar topics; and will message.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support import packets
from tests.unit.transport.harness import PATIENCE_S, Server, on_loop

OPEN = ("#", "!nosubscribe")
"""Everything but what the suite may not subscribe to."""


class Paho:
    """A paho client; each method that waits is to be called in a thread."""

    def __init__(self, server: Server, client_id: str, *, clean: bool = True, transport: Any = "tcp") -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, transport=transport)
        self.client.username_pw_set("alice")
        self.address = server.transport.addresses["mqtt" if transport == "tcp" else "websocket"]
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_connect = lambda _c, _d, flags, code, _p: self.events.put(("connect", (code.value, flags.session_present)))
        self.client.on_subscribe = lambda _c, _d, _mid, codes, _p: self.events.put(("subscribe", [code.value for code in codes]))
        self.client.on_unsubscribe = lambda _c, _d, _mid, _codes, _p: self.events.put(("unsubscribe", True))
        self.client.on_disconnect = lambda _c, _d, _flags, code, _p: self.events.put(("disconnect", code.value))

    def wait(self, what: str) -> Any:
        while True:
            name, value = self.events.get(timeout=PATIENCE_S)
            if name == what:
                return value

    def connect(self, keepalive: int = 60) -> tuple[int, bool]:
        self.client.connect(*self.address, keepalive=keepalive)
        self.client.loop_start()
        found: tuple[int, bool] = self.wait("connect")
        return found

    def subscribe(self, *filters: tuple[str, int]) -> list[int]:
        self.client.subscribe(list(filters))
        codes: list[int] = self.wait("subscribe")
        return codes

    def unsubscribe(self, *filters: str) -> bool:
        """Whether UNSUBACK came."""
        self.client.unsubscribe(list(filters))
        return bool(self.wait("unsubscribe"))

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_S)

    def receive(self, number: int) -> list[tuple[str, bytes, int, bool]]:
        found = [self.messages.get(timeout=PATIENCE_S) for _ in range(number)]
        return [(message.topic, bytes(message.payload), message.qos, message.retain) for message in found]

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def break_off(self) -> None:
        """Cut the socket, without DISCONNECT."""
        socket = self.client.socket()
        assert socket is not None
        self.client.loop_stop()
        socket.close()


def in_thread(scenario: Callable[[Server], None]) -> Callable[[Path], None]:
    """Run a blocking scenario beside the server's loop."""

    @on_loop
    async def test(tmp_path: Path) -> None:
        async with Server(tmp_path, plain_topics=OPEN) as server:
            await asyncio.to_thread(scenario, server)

    test.__name__ = scenario.__name__
    return test


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
@on_loop
async def test_basic(tmp_path: Path, transport: str) -> None:
    """A client hears itself at every QoS; a second CONNECT and another protocol name end the connection."""

    def scenario(server: Server) -> None:
        client = Paho(server, "phone", transport=transport)
        if transport == "websockets":
            client.client.ws_set_options(path="/mqtt")
        assert client.connect() == (0, False)
        assert client.subscribe(("TopicA", 2)) == [2]
        for qos in (0, 1, 2):
            client.publish("TopicA", b"%d" % qos, qos)
        assert client.receive(3) == [("TopicA", b"%d" % qos, qos, False) for qos in (0, 1, 2)]
        client.leave()

    async with Server(tmp_path, plain_topics=OPEN) as server:
        await asyncio.to_thread(scenario, server)
        twice = await server.connect("twice")
        twice.send(packets.connect("twice", username="alice"))
        assert await twice.gone() == []
        stranger = await server.open()
        stranger.send(packets.connect("stranger", protocol="hj"))
        assert await stranger.gone() == []


@in_thread
def test_retained_messages(server: Server) -> None:
    client = Paho(server, "phone")
    client.connect()
    topics = ["TopicA/B", "Topic/C", "TopicA/C"]
    for qos, topic in enumerate(topics):
        client.publish(topic, b"kept", qos, retain=True)
    client.subscribe(("+/+", 2))
    assert sorted(client.receive(3)) == sorted((topic, b"kept", qos, True) for qos, topic in enumerate(topics))
    for qos, topic in enumerate(topics):
        client.publish(topic, b"", qos, retain=True)
    client.receive(3)
    client.subscribe(("+/+", 2))
    client.publish("a/b", b"the next", 2)
    assert client.receive(1) == [("a/b", b"the next", 2, False)]
    client.leave()


@on_loop
async def test_zero_length_client_id(tmp_path: Path) -> None:
    """With clean session 1 a client of its own, several at once; with 0 it is refused."""

    def scenario(server: Server) -> None:
        clients = [Paho(server, "") for _ in range(2)]
        for client in clients:
            assert client.connect() == (0, False)
        for client in clients:
            client.leave()

    async with Server(tmp_path, plain_topics=OPEN) as server:
        await asyncio.to_thread(scenario, server)
        kept = await server.open()  # paho does not let its user ask for this
        kept.send(packets.connect("", username="alice", clean=False))
        assert [packet.body for packet in await kept.gone()] == [b"\x00\x02"]


@in_thread
def test_offline_message_queueing(server: Server) -> None:
    away, publisher = Paho(server, "away", clean=False), Paho(server, "publisher")
    away.connect()
    away.subscribe(("+/+", 2))
    away.leave()
    publisher.connect()
    for qos, topic in enumerate(("TopicA/B", "Topic/C", "TopicA/C")):
        publisher.publish(topic, b"%d" % qos, qos)
    publisher.leave()
    away = Paho(server, "away", clean=False)
    assert away.connect() == (0, True)
    assert away.receive(2) == [("Topic/C", b"1", 1, False), ("TopicA/C", b"2", 2, False)]
    away.leave()


@in_thread
def test_will_message(server: Server) -> None:
    watcher, client = Paho(server, "watcher"), Paho(server, "phone")
    watcher.connect()
    watcher.subscribe(("Topic/C", 2))
    client.client.will_set("Topic/C", b"not disconnected", 2)
    client.connect()
    client.break_off()
    assert watcher.receive(1) == [("Topic/C", b"not disconnected", 2, False)]
    watcher.leave()


@in_thread
def test_overlapping_subscriptions(server: Server) -> None:
    """One message for all of them, at the highest QoS."""
    client = Paho(server, "phone")
    client.connect()
    assert client.subscribe(("TopicA/#", 2), ("TopicA/+", 1)) == [2, 1]
    client.publish("TopicA/C", b"once", 2)
    client.publish("TopicA/D", b"the next", 2)
    assert client.receive(2) == [("TopicA/C", b"once", 2, False), ("TopicA/D", b"the next", 2, False)]
    client.leave()


@in_thread
def test_keepalive(server: Server) -> None:
    """A client that falls silent without closing its socket is cut, and its will fires."""
    watcher, silent = Paho(server, "watcher"), Paho(server, "silent")
    watcher.connect()
    watcher.subscribe(("/TopicA", 2))
    silent.client.will_set("/TopicA", b"keepalive expired", 2)
    silent.connect(keepalive=1)
    silent.client.loop_stop()  # from here on nobody pings
    assert watcher.receive(1) == [("/TopicA", b"keepalive expired", 2, False)]
    watcher.leave()


@in_thread
def test_redelivery_on_reconnect(server: Server) -> None:
    """QoS 1 and 2 to a client that has stopped working and goes without having acknowledged them."""
    client, publisher = Paho(server, "phone", clean=False), Paho(server, "publisher")
    client.connect()
    client.subscribe(("TopicA/#", 2))
    client.client.loop_stop()  # it reads nothing more
    publisher.connect()
    publisher.publish("TopicA/B", b"one", 1)
    publisher.publish("TopicA/C", b"two", 2)
    client.break_off()
    publisher.leave()
    client = Paho(server, "phone", clean=False)
    assert client.connect() == (0, True)
    found = [client.messages.get(timeout=PATIENCE_S) for _ in range(2)]
    assert [(message.payload, message.qos, message.dup) for message in found] == [(b"one", 1, True), (b"two", 2, True)]
    client.leave()


@in_thread
def test_subscribe_failure(server: Server) -> None:
    client = Paho(server, "phone")
    client.connect()
    assert client.subscribe(("nosubscribe", 2)) == [0x80]
    assert client.subscribe(("TopicA", 1), ("nosubscribe", 2), ("TopicA/B", 2)) == [1, 0x80, 2]
    client.leave()


@in_thread
def test_dollar_topics(server: Server) -> None:
    """A filter that begins with a wildcard does not match them."""
    client = Paho(server, "phone")
    client.connect()
    assert client.subscribe(("+/+", 2), ("#", 2)) == [2, 2]
    client.publish("$TopicA/B", b"never", 1)
    client.publish("TopicA/B", b"the next", 1)
    assert client.receive(1) == [("TopicA/B", b"the next", 1, False)]
    client.leave()


@in_thread
def test_unsubscribe(server: Server) -> None:
    client = Paho(server, "phone")
    client.connect()
    client.subscribe(("TopicA", 2), ("TopicA/B", 2), ("Topic/C", 2))
    assert client.unsubscribe("TopicA", "never subscribed")
    for topic in ("TopicA", "TopicA/B", "Topic/C"):
        client.publish(topic, b"", 1)
    assert [topic for topic, *_ in client.receive(2)] == ["TopicA/B", "Topic/C"]
    client.leave()


@in_thread
def test_reconnecting_by_itself_after_a_take_over(server: Server) -> None:
    first = Paho(server, "phone", clean=False)
    first.connect()
    first.subscribe(("a", 1))
    second = Paho(server, "phone", clean=False)
    assert second.connect() == (0, True)
    assert first.wait("disconnect") != 0
    first.client.loop_stop()
    second.publish("a", b"to myself", 1)
    assert second.receive(1) == [("a", b"to myself", 1, False)]
    second.leave()


@pytest.mark.parametrize("protocol", [mqtt.MQTTv31])
@on_loop
async def test_other_versions_learn_that_they_are_not_spoken(tmp_path: Path, protocol: Any) -> None:
    def scenario(server: Server) -> None:
        client = Paho(server, "phone")
        client.client = mqtt.Client(CallbackAPIVersion.VERSION2, "phone", protocol=protocol, reconnect_on_failure=False)
        client.client.on_connect = lambda _c, _d, _flags, code, _p: client.events.put(("connect", str(code)))
        client.client.connect(*client.address)
        client.client.loop_start()
        assert client.wait("connect") == "Unsupported protocol version"
        client.client.loop_stop()

    async with Server(tmp_path) as server:
        await asyncio.to_thread(scenario, server)
