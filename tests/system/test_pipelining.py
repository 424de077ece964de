"""Requests in one piece, thousands of them, before the first acknowledgement: each has its reply, however the client goes on.

What such a client acknowledges stands in its stream behind requests of its own, so the server may wait for none of that (INV-16
bounds what it keeps of replies meanwhile).
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support import packets, packets5
from tests.support.im import ImClient
from tests.support.im5 import Im5
from tests.support.raw import PATIENCE_S
from tests.system.conftest import Clients, Name

CONFIG = {"limits.requests_per_second": 100_000}

MANY = 3_000
"""More than the server takes apart, and than it keeps replies."""
ANSWERS = {0: 0, 1: packets.PUBACK, 2: packets.PUBREC}
"""What says that a request is over, by its QoS."""


class Pipeline:
    """A client that writes whenever there is room in its socket, and reads whatever comes."""

    def __init__(
        self, connection: socket.socket, up: str, *, v5: bool = False, waits: bool = False, acknowledges: bool = True
    ) -> None:
        """`waits`: replies wait for what it has acknowledged (Receive Maximum), and the answers to its requests do not."""
        self._socket = connection
        self._up = up
        self._packets: Any = packets5 if v5 else packets
        self.waits = waits
        self._acknowledges = acknowledges
        self._parser = packets.Parser()
        self._out = bytearray()
        self._last = 0
        self.asked: dict[int, str] = {}
        """The `id` of each request that has a packet identifier."""
        self.replies: list[str] = []
        """The `id`s of what came."""
        self.came: set[str] = set()
        """The same."""
        self.over: list[int] = []
        """Packet identifiers of requests that are over."""
        self.ended = False

    def ask(self, count: int, qos: int) -> None:
        """So many requests are to be written, all at once."""
        for _ in range(count):
            self._last += 1
            payload = json.dumps({"op": "convs", "id": f"c{self._last}"}).encode()
            if qos:
                self.asked[self._last] = f"c{self._last}"
            self._out += self._packets.publish(self._up, payload, qos=qos, packet_id=self._last if qos else 0)

    def until(self, done: Callable[[], bool], *, half_closes: bool = False) -> None:
        """Write and read until then; `half_closes`: all that it has to say is said."""
        self._socket.setblocking(False)
        while not done() and not self.ended:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            ready = poll.poll(PATIENCE_S * 1000)
            assert ready, f"it stands still: {len(self.replies)} replies, {len(self.over)} acknowledgements"
            if ready[0][1] & select.POLLOUT:
                del self._out[: self._socket.send(self._out[:65_536])]
                if half_closes and not self._out:
                    self._socket.shutdown(socket.SHUT_WR)
            if ready[0][1] & select.POLLIN:
                self._read()

    def _read(self) -> None:
        data = self._socket.recv(65_536)
        self.ended = not data
        for packet in self._parser.feed(data):
            if packet.kind == packets.PUBLISH:
                message = self._packets.Publish.of(packet)
                self.replies.append(json.loads(message.payload)["id"])
                self.came.add(self.replies[-1])
                if message.packet_id and self._acknowledges:
                    self._out += self._packets.acknowledge(packets.PUBACK, message.packet_id)
            elif packet.kind in (packets.PUBACK, packets.PUBREC):
                self.over.append(packet.packet_id)
                assert self.waits or self.asked[packet.packet_id] in self.came, "the reply stands before it"
                if packet.kind == packets.PUBREC:
                    self._out += self._packets.acknowledge(packets.PUBREL, packet.packet_id)

    def has_all(self) -> bool:
        """Every request has its reply, and is over."""
        return len(self.replies) >= self._last and len(self.over) >= len(self.asked)

    def assert_all(self) -> None:
        """Each once, and in order."""
        assert sorted(self.replies) == sorted(f"c{number}" for number in range(1, self._last + 1))
        assert self.over == list(self.asked)


def pipeline(client: ImClient, **how: Any) -> Pipeline:
    return Pipeline(client.socket, client.up_topic, **how)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("acknowledges", [True, False])
def test_thousands_of_requests_in_one_piece_have_their_replies(im: Clients, name: Name, qos: int, acknowledges: bool) -> None:
    asking = pipeline(im.online(name("alice")), acknowledges=acknowledges)
    asking.ask(MANY, qos)
    asking.until(asking.has_all)
    asking.assert_all()


def test_who_has_said_all_that_it_has_to_say_is_answered_and_let_go(im: Clients, name: Name) -> None:
    asking = pipeline(im.online(name("alice")), acknowledges=False)
    asking.ask(MANY, 1)
    asking.until(lambda: asking.ended, half_closes=True)
    asking.assert_all()


@pytest.mark.parametrize("receive_maximum", [1, 65_535])
def test_so_have_those_of_mqtt_5_whose_window_is_bounded_but_for_qos_0(
    server: ServerProcess, name: Name, receive_maximum: int
) -> None:
    given = {packets5.RECEIVE_MAX: receive_maximum}
    with Im5(server.mqtt_port, name("alice"), given=given) as client:
        client.listen()
        asking = Pipeline(client._socket, client.up, v5=True, waits=receive_maximum == 1)
        for count, qos in [(MANY, 0), (60, 1), (MANY, 0)]:
            asking.ask(count, qos)
        asking.until(asking.has_all)
        asking.assert_all()


def test_items_go_on_beside_replies_that_nobody_acknowledges(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    bob.auto_ack = False
    for number in range(300):
        bob.request("convs", id=f"c{number}")
    bob.until(lambda: len(bob.events) == 300, "every reply")
    assert [event.packet.qos for event in bob.events] == [1] * 256 + [0] * 44
    alice.say(bob.user, "hello")
    bob.puback(bob.wait("msg", body="hello"))
    for event in bob.events[:10]:
        bob.puback(event)
    bob.flush()
    assert bob.must("convs").packet.qos == 1, "there is room for it"
