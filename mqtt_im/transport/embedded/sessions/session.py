"""The state of one MQTT session (MQTT-3.1.2.4): what outlives a connection, where it is kept.

An `Outbox` holds the plain messages at QoS 1 and 2 that the client has not acknowledged. It does no I/O: whoever calls
it writes the packets and the database rows. Its packet identifiers follow from the number of a message in its
session, so a redelivery carries the same one even after a restart (MQTT-4.4.0-1).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from mqtt_im.config import LimitsConfig
from mqtt_im.transport.api import FIRST_PLAIN_PACKET_ID
from mqtt_im.transport.embedded.sessions.access import Rights

Key = tuple[str, str]
"""User (empty for nobody), and device or client id, or what stands for one that has none (`nameless`)."""

WAITING: Final = 0
SENT: Final = 1
RELEASED: Final = 2

IDENTIFIER_SHIFT: Final = 6
"""Where the Subscription Identifier stands in a filter's options."""

_PACKET_IDS: Final = 0x1_0000 - FIRST_PLAIN_PACKET_ID


def nameless(number: int) -> str:
    """What stands in a key for the client id of a client that gave none: a name that no client can give (MQTT-1.5.3-2)."""
    return f"\0{number}"


def is_nameless(name: str) -> bool:
    """Whether nobody can come back under this name: then no table and no other node holds anything of it.

    PostgreSQL takes no such text.
    """
    return name.startswith("\0")


class Room:
    """How much waits in all queues, and for each user, whose sessions share one bound."""

    def __init__(self, total: int, per_user: int) -> None:
        """Bytes."""
        self._total = total
        self._per_user = per_user
        self._users: dict[str, int] = {}
        self.taken = 0

    def add(self, user: str, size: int) -> None:
        """So much more (or, below 0, less) waits for a user."""
        self.taken += size
        left = self._users.get(user, 0) + size
        if left:
            self._users[user] = left
        else:
            self._users.pop(user, None)

    def exceeded(self, user: str) -> bool:
        """Whether something that waits for this user has to go."""
        return self.taken > self._total or self._users.get(user, 0) > self._per_user


class Receiver(Protocol):
    """What a session asks of the connection that it has."""

    writable: bool
    """False while the client does not read."""
    closed: bool
    room: int
    """How many more packets above QoS 0 the client takes now."""

    def publish_plain(
        self,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        packet_id: int = 0,
        retain: bool = False,
        dup: bool = False,
        properties: bytes = b"",
    ) -> bool:
        """Write one PUBLISH of any QoS; at QoS 0 it is dropped while the client does not read.

        `properties` are left out where the client speaks 3.1.1. False where the packet is larger than the client takes: it was
        not written.
        """

    def occupy(self, packet_id: int) -> None:
        """A packet identifier of a former connection is in use here too."""

    def answer(self, packet: bytes) -> None:
        """Write one packet."""


class Message:
    """One plain message for one session, at QoS 1 or 2; `stage` is WAITING, SENT or (QoS 2, after PUBREC) RELEASED."""

    __slots__ = ("expires", "on_disk", "payload", "properties", "qos", "retain", "seq", "share", "stage", "topic")

    def __init__(
        self,
        seq: int,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        stage: int = WAITING,
        properties: bytes = b"",
        expires: int = 0,
        share: str = "",
    ) -> None:
        self.seq = seq
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.stage = stage
        self.properties = properties
        """Encoded ones, to be sent with it."""
        self.expires = expires
        """When nobody is to get it any more, in ms since 1970; 0: never."""
        self.share = share
        """The shared subscription by which it came here; empty for none."""
        self.on_disk: bool | None = None
        """Of a kept session: whether it has come to the disk; None as long as that is not known."""

    @property
    def packet_id(self) -> int:
        """The identifier it is sent with, each time."""
        return FIRST_PLAIN_PACKET_ID + self.seq % _PACKET_IDS

    @property
    def size(self) -> int:
        """Bytes that it takes in a queue, roughly."""
        return len(self.topic) + len(self.payload) + len(self.properties)


class Outbox:
    """Plain messages on their way to one client: some in flight, the others waiting in a bounded queue."""

    __slots__ = ("_last", "_limit", "_room", "_user", "_waiting", "_window", "again", "in_flight")

    def __init__(self, window: int, limit: int, room: Room, user: str = "") -> None:
        """Let at most `window` messages be in flight and `limit` wait, and all of them have their place in `room`."""
        self._room = room
        self._user = user
        self._window = window
        self._limit = limit
        self._last = 0
        self._waiting: deque[Message] = deque()
        self.in_flight: dict[int, Message] = {}
        """By packet identifier, in the order in which they were sent first."""
        self.again: deque[Message] = deque()
        """Those of them that this connection has still to be sent again."""

    def restore(self, messages: Iterable[Message]) -> None:
        """Take over what was found on disk, in its order."""
        for message in messages:
            self._last = message.seq
            if message.stage == WAITING:
                self.ready(message)
            else:
                self._room.add(self._user, message.size)
                self.in_flight[message.packet_id] = message

    def create(
        self,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: bytes = b"",
        expires: int = 0,
        share: str = "",
    ) -> Message:
        """Number a message; it is not sent before `ready` has been called with it."""
        self._last += 1
        return Message(self._last, topic, payload, qos, retain, WAITING, properties, expires, share)

    def everything(self) -> list[Message]:
        """What is in flight, and then what waits, in their order."""
        return [*self.in_flight.values(), *self._waiting]

    def ready(self, message: Message) -> list[Message]:
        """Queue a message; returns those that were dropped for it because the queue is full, the oldest first."""
        self._waiting.append(message)
        self._room.add(self._user, message.size)
        dropped: list[Message] = []
        while len(self._waiting) > max(self._limit, self._window - len(self.in_flight)) or (
            self._room.exceeded(self._user) and len(self._waiting) > 1
        ):
            dropped.append(self._waiting.popleft())
            self._room.add(self._user, -dropped[-1].size)
        return dropped

    def clear(self) -> None:
        """Nothing waits, and nothing is in flight."""
        for message in self.everything():
            self._room.add(self._user, -message.size)
        self._waiting.clear()
        self.in_flight.clear()
        self.again.clear()

    @property
    def has_room(self) -> bool:
        """Whether one more message could be in flight at once."""
        return len(self.in_flight) + len(self._waiting) < self._window

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not (self._waiting or self.in_flight)

    def next(self) -> Message | None:
        """Move the next message into flight, or return None where the window is full or nothing waits.

        Where more waits for the user than may, one is in flight at a time, and nobody keeps many by not acknowledging them.
        """
        window = 1 if self._room.exceeded(self._user) else self._window
        if not self._waiting or len(self.in_flight) >= window or self._waiting[0].packet_id in self.in_flight:
            return None
        message = self._waiting.popleft()
        message.stage = SENT
        self.in_flight[message.packet_id] = message
        return message

    def acknowledged(self, packet_id: int) -> Message | None:
        """PUBACK: the message is done. None where it answers nothing."""
        return self._finish(packet_id, 1, SENT)

    def received(self, packet_id: int) -> Message | None:
        """PUBREC: the client has the message and is to be sent PUBREL. None where it answers nothing."""
        message = self.in_flight.get(packet_id)
        if message is None or message.qos != 2:
            return None
        message.stage = RELEASED
        return message

    def completed(self, packet_id: int) -> Message | None:
        """PUBCOMP: the message is done. None where it answers nothing."""
        return self._finish(packet_id, 2, RELEASED)

    def refused(self, packet_id: int) -> Message | None:
        """PUBREC that says that the client does not want it: the message is done. None where it answers nothing."""
        return self._finish(packet_id, 2, SENT)

    def withdraw(self, is_refused: Callable[[bytes], bool]) -> list[Message]:
        """Nothing of the topics that are refused now is sent any more; returns what has changed by that.

        At QoS 2 the client may have what was sent, so its identifier is still released: such a message is RELEASED from now on.
        """
        changed = [each for each in self.everything() if each.stage != RELEASED and is_refused(each.topic)]
        for message in changed:
            if message.stage == WAITING:
                self._room.add(self._user, -message.size)
            elif message.qos == 2:
                message.stage = RELEASED
            else:
                self.forget(message)
        gone = {each.seq for each in changed}
        self._waiting = deque(each for each in self._waiting if each.seq not in gone)
        return changed

    def topics(self) -> set[bytes]:
        """Of what is still to be sent, or sent again."""
        return {each.topic for each in self.everything() if each.stage != RELEASED}

    def forget(self, message: Message) -> None:
        """A message in flight is over without its client."""
        if self.in_flight.pop(message.packet_id, None) is not None:
            self._room.add(self._user, -message.size)

    def _finish(self, packet_id: int, qos: int, stage: int) -> Message | None:
        message = self.in_flight.get(packet_id)
        if message is None or message.qos != qos or message.stage != stage:
            return None
        del self.in_flight[packet_id]
        self._room.add(self._user, -message.size)
        return message


class Session:
    """One MQTT session; `connection` is None while a kept one's client is away."""

    __slots__ = (
        "asking",
        "catch_up",
        "connection",
        "expiry",
        "filters",
        "id",
        "kept",
        "key",
        "outbox",
        "plain",
        "received",
        "rights",
        "seen",
        "unwritten",
    )

    def __init__(self, key: Key, session_id: str, expiry: int) -> None:
        self.key = key
        self.id = session_id
        self.expiry = expiry
        """Seconds that it lives without a connection (MQTT5-3.1.2.11.2)."""
        self.kept = expiry > 0
        """It is on disk."""
        self.seen = 0
        """When its client went, in seconds since 1970; 0 while it is there."""
        self.connection: Receiver | None = None
        self.filters: dict[str, int] = {}
        """Granted filters → options: QoS in two bits, `NO_LOCAL`, `RETAIN_AS_PUBLISHED`, and from bit `IDENTIFIER_SHIFT` on
        the Subscription Identifier, 0 for none."""
        self.plain = 0
        """How many of them are plain, and stand in the index."""
        self.rights: Rights | None = None
        """What the others yield; None where there is none of them."""
        self.received: set[int] | None = None
        """QoS 2 identifiers that were received and not released."""
        self.outbox: Outbox | None = None
        self.asking: Receiver | None = None
        """The connection for which it is being asked what may still be handed out; until that is known, nothing that waits is."""
        self.catch_up: OrderedDict[str, int] | None = None
        """Retained messages that a subscription is still to be sent: topic → its options."""
        self.unwritten: deque[Message] | None = None
        """Messages that are on their way to the disk, and behind them those that are there."""

    def need_outbox(self, limits: LimitsConfig, room: Room) -> Outbox:
        """The session's outbox, made at its first use."""
        if self.outbox is None:
            self.outbox = Outbox(limits.max_inflight, limits.max_queued_messages, room, self.key[0])
        return self.outbox

    def writes(self, message: Message) -> None:
        """A message of this kept session is on its way to the disk."""
        if self.unwritten is None:
            self.unwritten = deque()
        self.unwritten.append(message)

    def written(self, message: Message, *, ok: bool) -> list[Message]:
        """The message has come to the disk, or has not. The messages that may be queued now, in the order of their numbers."""
        message.on_disk = ok
        waiting = self.unwritten
        if waiting is None:
            return []  # the session was discarded meanwhile
        found: list[Message] = []
        while waiting and waiting[0].on_disk is not None:
            first = waiting.popleft()
            if first.on_disk:
                found.append(first)
        if not waiting:
            self.unwritten = None
        return found

    @property
    def idle(self) -> bool:
        """Nothing of it is needed in memory while its client is away."""
        return not self.plain and self.unwritten is None and (self.outbox is None or self.outbox.empty)
