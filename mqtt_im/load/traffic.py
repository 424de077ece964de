"""Pairs of a sending and a receiving connection, closed loop or paced, each message checked and timed.

A message is done when the sender has its PUBACK and, from our server, `sent`, and the receiver has `msg`. A relay gets
the same packets bit for bit; there the receiver subscribes to the sender's topic.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from mqtt_im.load import wire
from mqtt_im.load.bodies import BODY_BYTES, bodies
from mqtt_im.load.broker import Broker
from mqtt_im.load.peer import Peer, PeerError, close_all

_BODIES = bodies()
_UNANSWERED = sys.maxsize
_DRAIN_TIMEOUT_S = 60.0
_DIALS_AT_ONCE = 100
_PATIENCE_S = 60.0


class Traffic:
    """What all pairs of a run share: whether to send, what to count, the first failure."""

    def __init__(self) -> None:
        self.sending = False
        self.measuring = False
        self.delivered = 0
        self.latencies: list[float] = []
        """Seconds from the write of a message to its arrival, of those that arrived while `measuring`."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: PeerError) -> None:
        """The run is over; the first reason counts."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def passing(self, seconds: float) -> None:
        """Returns after `seconds`; raises what failed before."""
        await asyncio.wait([self.failed], timeout=seconds)
        if self.failed.done():
            self.failed.result()

    async def until(self, done: Callable[[], bool], timeout_s: float = _DRAIN_TIMEOUT_S) -> None:
        """Returns when `done()`; raises what failed before, or `PeerError` after `timeout_s`."""
        deadline = perf_counter() + timeout_s
        while not done():
            if perf_counter() > deadline:
                raise PeerError(f"not everything had arrived after {timeout_s:g} s")
            await self.passing(0.02)


class Sender(Peer):
    """The sending end; its messages carry ids that follow from their number."""

    def __init__(self, traffic: Traffic, user: str, recipients: Sequence[str], broker: Broker) -> None:
        super().__init__()
        self.traffic = traffic
        self.user = user
        self.started = 0
        self.answered = 0 if broker.is_ours else _UNANSWERED
        self.arrived = 0
        self.inflight = 0
        """How many messages are kept on their way; 0 leaves the pace to whoever calls `send`."""
        self.limit = _UNANSWERED
        """How many messages are sent in all."""
        self.pending: deque[tuple[float, bytes]] = deque()
        """When each message that has not arrived yet was written, and its id."""
        self.unanswered: deque[bytes] = deque()
        self.expects_answer = broker.is_ours
        tag = f"{user}-{int(perf_counter() * 1000) % 10**9}-".encode()
        self._tag = tag
        self._first_body = zlib.crc32(user.encode())
        self._templates = [self._template(broker, recipient) for recipient in recipients]

    def push(self, count: int) -> None:
        """Put the next `count` messages in `out`."""
        now, none = perf_counter(), self.form.none
        for _ in range(count):
            number = self.started
            self.started = number + 1
            message_id = b"%s%08d" % (self._tag, number)
            head, before, middle = self._templates[number % len(self._templates)]
            body = _BODIES[(number + self._first_body) % len(_BODIES)]
            self.out += (head, (number % 65535 + 1).to_bytes(2, "big"), none, before, message_id, middle, body, b'"}')
            self.pending.append((now, message_id))
            if self.expects_answer:
                self.unanswered.append(message_id)

    def send(self, count: int) -> None:
        """Write the next `count` messages now."""
        self.push(count)
        self.transport.write(b"".join(self.out))
        self.out.clear()

    def pump(self) -> None:
        """Fill what is in flight up to `inflight`; called by the receiver too, outside this connection's reads."""
        room = self._room()
        if room > 0:
            self.send(room)

    def turn(self) -> None:
        room = self._room()
        if room > 0:
            self.push(room)

    def received(self, data: bytes, start: int, stop: int) -> None:
        self.answer(data, start, stop)

    def answer(self, data: bytes, start: int, stop: int) -> bool:
        """Whether this is the next `sent`; a backlog may come before the first, and receipts, which are events, between them."""
        if not self.started:
            return False
        unanswered = self.unanswered
        if unanswered and data.find(unanswered[0], start, stop) >= 0 and data.find(b'"sent"', start, stop) >= 0:
            unanswered.popleft()
            self.answered += 1
            return True
        if data.find(b'"receipt"', start, stop) < 0:
            self.traffic.fail(PeerError(f"instead of the next `sent` came {data[start:stop]!r}"))
        return False

    def fail(self, error: PeerError) -> None:
        self.traffic.fail(error)

    def finished(self) -> bool:
        """Everything that was started has been acknowledged, answered and has arrived."""
        return self.started == self.pubacks == self.arrived and (not self.expects_answer or self.answered == self.started)

    def _room(self) -> int:
        if not self.traffic.sending:
            return 0
        done = min(self.pubacks, self.answered, self.arrived)
        return min(self.inflight - (self.started - done), self.limit - self.started)

    def _template(self, broker: Broker, recipient: str) -> tuple[bytes, bytes, bytes]:
        before = b'{"op":"send","id":"'
        middle = f'","to":"{recipient}","body":"'.encode()
        length = len(before) + len(self._tag) + 8 + len(middle) + BODY_BYTES + 2
        return wire.publish_head(broker.up(self.user), length, broker.form), before, middle


class Receiver(Peer):
    """The receiving end of one sender."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self.sender = sender
        self.traffic = sender.traffic

    def received(self, data: bytes, start: int, stop: int) -> None:
        if not self.sender.started:
            return  # a backlog: the user's first device gets what was sent before
        pending = self.sender.pending
        if not pending or data.find(pending[0][1], start, stop) < 0:
            if data.find(b'"receipt"', start, stop) < 0:
                self.traffic.fail(PeerError(f"instead of the next message came {data[start:stop]!r}"))
            return
        written, _ = pending.popleft()
        self.sender.arrived += 1
        if self.traffic.measuring:
            self.traffic.latencies.append(perf_counter() - written)
        self.traffic.delivered += 1

    def turn(self) -> None:
        if self.out:  # the PUBACKs first: they are on the way when the next message is
            self.transport.write(b"".join(self.out))
            self.out.clear()
        self.sender.pump()

    def fail(self, error: PeerError) -> None:
        self.traffic.fail(error)


class LoneSender(Sender):
    """A sender to whoever, connected or not: a message is done when it is answered, and timed to that.

    A relay doesn't answer; there the PUBACK is all there is.
    """

    def turn(self) -> None:
        if not self.expects_answer:
            self.arrived = self.pubacks
        super().turn()

    def received(self, data: bytes, start: int, stop: int) -> None:
        if not self.answer(data, start, stop):
            return
        written, _ = self.pending.popleft()
        self.arrived += 1
        if self.traffic.measuring:
            self.traffic.latencies.append(perf_counter() - written)
        self.traffic.delivered += 1


async def connect_pairs(
    broker: Broker, traffic: Traffic, names: Sequence[tuple[str, str]], password: str | None = None
) -> list[tuple[Sender, Receiver]]:
    """A connected and subscribed pair for each (sender, recipient)."""
    pairs = []
    joins: list[Callable[[], Coroutine[Any, Any, None]]] = []
    for user, recipient in names:
        sender = Sender(traffic, user, [recipient], broker)
        receiver = Receiver(sender)
        topic = broker.down(recipient) if broker.is_ours else broker.up(user)
        joins += [
            partial(join, broker, receiver, recipient, topic, password),
            partial(join, broker, sender, user, broker.down(user), password),
        ]
        pairs.append((sender, receiver))
    await some_at_once(joins)
    return pairs


async def join(broker: Broker, peer: Peer, user: str, topic_filter: str, password: str | None = None) -> None:
    """The peer is connected as the user's device and subscribed; `PeerError` where that takes longer than a minute."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await peer.dial(broker, broker.login(user, password))
            await peer.subscribe(topic_filter)
    except TimeoutError:
        raise PeerError(f"the server has not let {user} in within {_PATIENCE_S:g} s") from None


async def connect_idle(
    broker: Broker, users: Sequence[str], topic: str | None = None, make: Callable[[], Peer] = Peer
) -> list[Peer]:
    """A connection for each user, subscribed to `topic` or to the user's own down topic."""
    peers = [make() for _ in users]
    pairs = zip(peers, users, strict=True)
    await some_at_once([partial(join, broker, peer, user, topic or broker.down(user)) for peer, user in pairs])
    return peers


async def some_at_once(works: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """All of them are done, a few at a time; raises the first error, with the others called off."""
    for first in range(0, len(works), _DIALS_AT_ONCE):
        tasks = [asyncio.create_task(work()) for work in works[first : first + _DIALS_AT_ONCE]]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            task.result()


async def pace(traffic: Traffic, senders: Sequence[Sender], per_second: float) -> None:
    """Send one message at a time from one sender after the other, so many a second, while the traffic is sending."""
    begin, count = perf_counter(), 0
    while traffic.sending:
        senders[count % len(senders)].send(1)
        count += 1
        await asyncio.sleep(max(0.0, begin + count / per_second - perf_counter()))


async def finish(traffic: Traffic, senders: Sequence[Sender], peers: Sequence[Peer]) -> None:
    """What is on its way has arrived, and everybody has left. Raises `PeerError` where something is missing."""
    traffic.sending = False
    await traffic.until(lambda: all(sender.finished() for sender in senders))
    await close_all(peers)
