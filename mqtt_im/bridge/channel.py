"""A channel: one device's connection as the bridge serves it, with its delivery, its choices and its replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.delivery import Delivery
from mqtt_im.mqtt import properties as props
from mqtt_im.protocol.codec import deflate, encode_json, json_to_msgpack
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.requests import Request
from mqtt_im.transport.api import FIRST_REPLY_PACKET_ID, LAST_REPLY_PACKET_ID, Link

MIN_ZIP_BYTES = 128
"""Shorter payloads are sent as they are."""

TYPING_AGAIN_S = 1.0

MAX_UNREAD = 256
"""Replies that a device may leave without PUBACK. Further ones leave at QoS 0: they stand before the PUBACK of their requests in
the same stream, so who was cut off before them asks again, and nothing of them is kept."""


class Reply(NamedTuple):
    """To the device topic or not, its JSON text, and in MQTT 5 the Correlation Data of its request.

    `again` is the request that is asked anew where the reply is to be sent again: one that shows messages, which may be recalled
    meanwhile, so that its text is not kept.
    """

    to_device: bool
    text: bytes
    correlation: bytes | None = None
    again: Request | None = None

    @property
    def properties(self) -> bytes:
        """Those of MQTT 5, as they are sent."""
        return b"" if self.correlation is None else props.one(props.CORRELATION_DATA, self.correlation)

    @property
    def weight(self) -> int:
        """Bytes of its text and what goes with that."""
        return len(self.text) + len(self.correlation or b"")

    @property
    def size(self) -> int:
        """Bytes that are kept of it; 0 where they are few."""
        weight = self.weight
        return weight if weight > _SMALL_REPLY else 0


Replies = dict[int, Reply]
"""Replies without PUBACK, by packet identifier."""

_SMALL_REPLY: Final = 1024
_FRAME: Final = 64
"""Bytes of a packet around topic and payload, at most."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Channel:
    """Lives as long as its link. `delivery` is None until the device has subscribed and its state was read."""

    __slots__ = (
        "awaited",
        "batch",
        "began",
        "codec",
        "correlations",
        "delivery",
        "device",
        "device_topic",
        "exposed",
        "greeting",
        "late",
        "late_bytes",
        "missed",
        "link",
        "newest",
        "opening",
        "reads",
        "ready",
        "replies",
        "typed",
        "user",
        "user_topic",
        "waiting",
        "window",
        "zip",
        "_next_reply",
        "_unacknowledged",
        "_unread_before",
    )

    def __init__(self, link: Link, user_topic: bytes, device_topic: bytes) -> None:
        self.link = link
        self.user = link.user
        self.device = link.device
        self.user_topic = user_topic
        self.device_topic = device_topic
        self.delivery: Delivery | None = None
        self.newest: Any = None
        """Its newest uplink that may change something (`uplink.UplinkJob`), where order hangs on it."""
        self.missed = 0
        """Items up to it had been committed before the delivery began."""
        self.exposed = 0
        """Items up to it may have been offered on former connections, and not been acknowledged; 0 for none."""
        self.opening = False
        """The device's state was asked for."""
        self.began: asyncio.Future[Refusal | None] | None = None
        """A SUBSCRIBE waits for this: the store has said where the delivery begins, or why it does not."""
        self.greeting = 0
        """`hello`s without answer, and that SUBSCRIBE: until then nothing is delivered, since they say from where on, and how."""
        self.ready = False
        """It will be pumped in this turn of the loop."""
        self.codec = "json"
        self.batch = 0
        """The most bytes of a batch; 0: items come alone."""
        self.zip = False
        self.window = 0
        """What `hello` asked for; 0 where it did not."""
        self.replies: Replies = {}
        self.reads = False
        """The device has acknowledged a reply on this connection, so it is one that does."""
        self.waiting = 0
        """Requests that have no answer yet."""
        self.late: list[tuple[Reply, str | None]] | None = None
        """Replies that wait until the device takes more packets, with the `id` of their requests (Receive Maximum)."""
        self.late_bytes = 0
        """Of their texts."""
        self.correlations: dict[int, bytes] | None = None
        """Correlation Data of requests without an answer, by token."""
        self.awaited: dict[int, bytes] | None = None
        """The same of `sent` items that have not been offered, by `pos`."""
        self.typed: tuple[str, bool, float] | None = None
        """The last `typing` that was passed on: to whom, its state, and when (seconds, monotonic)."""
        self._next_reply = FIRST_REPLY_PACKET_ID
        self._unacknowledged = 0
        self._unread_before: frozenset[int] | None = None
        """Packet identifiers of the replies without PUBACK when the device last said where it stands."""

    @property
    def listening(self) -> bool:
        """Whether the device is subscribed to one of its down topics."""
        return self.link.user_qos >= 0 or self.link.device_qos >= 0

    def may_tell_typing(self, to: str, on: bool, now: float) -> bool:
        """Whether a `typing` is news: not the same again within `TYPING_AGAIN_S`."""
        if self.typed is not None:
            last_to, last_on, at = self.typed
            if (to, on) == (last_to, last_on) and now - at < TYPING_AGAIN_S:
                return False
        self.typed = (to, on, now)
        return True

    @property
    def item_qos(self) -> int:
        """The granted QoS of the topic that items go to."""
        return self.link.user_qos if self.link.user_qos >= 0 else max(self.link.device_qos, 0)

    @property
    def settled(self) -> bool:
        """Whether the device has acknowledged all that it was ever offered, here and on former connections.

        False before its delivery begins, when that is not known.
        """
        delivery = self.delivery
        if delivery is None:
            return False
        # Not by what is in flight alone: to an app, a PUBACK is no acknowledgement.
        return not (delivery.unacknowledged or delivery.in_flight() or delivery.sent_before) and delivery.cursor >= self.exposed

    @property
    def takes_more(self) -> bool:
        """Whether its socket takes items now, and the device too (Receive Maximum)."""
        return self.link.writable and (not self.item_qos or self.link.room > 0)

    @property
    def packet_bytes(self) -> int:
        """About how many the items of the last packet have; 0 where all that was sent is acknowledged."""
        return 0 if self.delivery is None else sum(entry.size for _, entry in self.delivery.offered)

    def limit_batches(self) -> None:
        """Batches are as large as the device takes."""
        if self.delivery is not None:
            self.delivery.limit = self.payload_bytes

    @property
    def payload_bytes(self) -> int:
        """The most bytes of JSON that surely fit into one packet for this device; 0: no bound."""
        if not self.link.max_packet:
            return 0
        left = self.link.max_packet - max(len(self.user_topic), len(self.device_topic)) - _FRAME
        # A number takes up to nine bytes of MessagePack where it takes four of JSON, its comma included.
        return max(1, left * 4 // 9 if self.codec == "msgpack" else left)

    def encoder(self) -> Callable[[bytes], bytes] | None:
        """See `encode`; None where JSON text leaves as it is."""
        return None if self.codec == "json" and not self.zip else self.encode

    def encode(self, payload: bytes) -> bytes:
        """JSON text in the form that the device has asked for."""
        if self.codec == "msgpack":
            payload = json_to_msgpack(payload)
        if self.zip and len(payload) >= MIN_ZIP_BYTES:
            payload = deflate(payload)
        return payload

    def reply(
        self, fields: dict[str, Any], correlation: bytes | None = None, again: Request | None = None, packet_id: int = 0
    ) -> None:
        """Send a reply, where the device listens: to its own topic if it has that one.

        `again` is the request, where the reply shows messages; `packet_id` that of a former packet in whose place it is sent.
        """
        link = self.link
        if link.closed or not self.listening:
            return
        if "dup" in fields and "pos" in fields and (self.delivery is None or fields["pos"] > self.delivery.cursor):
            # It would overtake the items before it, which whoever goes by the number alone would then take for repeats.
            fields = {name: value for name, value in fields.items() if name != "pos"}
        reply = Reply(link.device_qos >= 0, encode_json(fields), correlation, again)
        if packet_id and link.room > 0:
            self._send(reply, fields.get("id"), packet_id)
            return
        if packet_id:
            self.forget_reply(packet_id)  # what came meanwhile has the room (MQTT5-3.3.4-9): it waits as a new one
        self._send_or_put_off(reply, fields.get("id"))

    def flush_late(self) -> None:
        """Send the replies that waited for the device to take more packets."""
        while self.late and self.link.room > 0 and not self.link.closed:
            reply, request_id = self.late.pop(0)
            self._is_late(-len(reply.text))
            self._send(reply, request_id)

    def _send_or_put_off(self, reply: Reply, request_id: str | None) -> None:
        """It leaves now, unless it has to wait until the device takes more packets."""
        if self.unread < MAX_UNREAD and (self.late or (self.link.room <= 0 and self._qos(reply))):
            self._put_off(reply, request_id)
        else:
            self._send(reply, request_id)

    def _put_off(self, reply: Reply, request_id: str | None) -> None:
        """The reply waits until the device takes more packets."""
        if self.late is None:
            self.late = []
        self.late.append((reply, request_id))
        self._is_late(len(reply.text))

    def waited(self) -> list[Reply]:
        """The replies that still wait for the device to take more packets, as they are kept for the session's next connection."""
        return [_to_keep(reply) for reply, _ in self.late or ()]

    def _is_late(self, size: int) -> None:
        """So many bytes more, or less, of replies wait."""
        self.late_bytes += size
        self.link.keep(size)

    @property
    def unread(self) -> int:
        """Replies that the device has not acknowledged."""
        return len(self.replies) + (len(self.late) if self.late else 0)

    def read(self, packet_id: int) -> bool:
        """A reply has its PUBACK; False where none waited for that."""
        if not self.forget_reply(packet_id):
            return False
        self.reads = True
        if self._unread_before is not None and packet_id not in self._unread_before and self.delivery is not None:
            # It was sent behind all that the device had in hand when it said where it stands (MQTT-4.6.0-2).
            self._unread_before = None
            self.delivery.caught_up()
        return True

    def restart(self, after: int, head: int) -> None:
        """The device has said where it stands (`hello` with `after`): delivery goes on behind it.

        PUBACKs of what it had in hand may be on their way, and say nothing of what it is offered from now on. The first reply
        that is sent from now on tells them apart, for a device that acknowledges replies.
        """
        if self.delivery is not None:
            self._unread_before = frozenset(self.replies)
            self.delivery.restart(after, head)

    def _qos(self, reply: Reply) -> int:
        return max(0, self.link.device_qos if reply[0] else self.link.user_qos)

    def _send(self, reply: Reply, request_id: str | None, former: int = 0) -> None:
        packet_id = former or (self._reply_id() if self.unread < MAX_UNREAD and self._qos(reply) else 0)
        topic = self.device_topic if reply.to_device else self.user_topic
        payload, properties = self.encode(reply.text), reply.properties
        forms = [(payload, properties)]
        if self.link.max_packet:
            told: dict[str, Any] = {"op": "error"} if request_id is None else {"op": "error", "id": request_id}
            told |= {"code": "too_large", "message": "the reply is larger than the client takes", "retry": False}
            error = self.encode(encode_json(told))
            forms += [(payload, b""), (error, properties), (error, b"")]
        for payload, properties in forms:
            if self.link.publish(topic, payload, packet_id, bool(former), False, properties):
                if packet_id:
                    self._keep_reply(packet_id, _to_keep(reply))
                return

    def forget_reply(self, packet_id: int) -> bool:
        """A reply is not to be sent again; False where none waited for its PUBACK."""
        reply = self.replies.pop(packet_id, None)
        if reply is not None and (size := reply.size):
            self.link.keep(-size)
        return reply is not None

    def _keep_reply(self, packet_id: int, reply: Reply) -> None:
        self.replies[packet_id] = reply
        if size := reply.size:
            self.link.keep(size)

    def event(self, payload: bytes) -> None:
        """Send an event at QoS 0, unless the device does not keep up; it is found again in `convs`."""
        link = self.link
        if not link.closed and link.writable and self.listening:
            link.publish(self.user_topic if link.user_qos >= 0 else self.device_topic, self.encode(payload), 0)

    def resend(self, replies: Replies, waited: list[Reply]) -> list[tuple[int, Request, bytes | None]]:
        """Replies that a former connection of the session had not acknowledged leave again (MQTT-4.4.0-1), in this one's form.

        Behind them for the first time those that `waited` there. Returns those that are to be asked for again, since they show
        messages, as these are now: packet identifier, 0 for what was not sent yet, request, and its Correlation Data.
        """
        again: list[tuple[int, Request, bytes | None]] = []
        for packet_id, reply in replies.items():
            if not self._qos(reply):
                continue
            if reply.again is not None:
                self._keep_reply(packet_id, reply)
                again.append((packet_id, reply.again, reply.correlation))
                continue
            if self.link.room <= 0:
                self._put_off(reply, None)
                continue
            topic = self.device_topic if reply.to_device else self.user_topic
            if self.link.publish(topic, self.encode(reply.text), packet_id, True, False, reply.properties):
                self._keep_reply(packet_id, reply)
        for reply in waited:
            if reply.again is not None:
                again.append((0, reply.again, reply.correlation))
            else:
                self._send_or_put_off(reply, None)
        return again

    def _reply_id(self) -> int:
        for _ in range(LAST_REPLY_PACKET_ID - FIRST_REPLY_PACKET_ID + 1):
            packet_id = self._next_reply
            self._next_reply = packet_id + 1 if packet_id < LAST_REPLY_PACKET_ID else FIRST_REPLY_PACKET_ID
            if packet_id not in self.replies:
                return packet_id
        return 0

    def correlate(self, token: int, correlation: bytes | None) -> int:
        """Remember the Correlation Data of a request until its answer; returns its token, a negative one for what has none."""
        if correlation is None:
            return token
        if self.correlations is None:
            self.correlations = {}
        if not token:
            self._unacknowledged -= 1
            token = self._unacknowledged
        self.correlations[token] = correlation
        self.link.keep(len(correlation))
        return token

    def correlation(self, token: int) -> bytes | None:
        """The Correlation Data of a request, which is over with that."""
        found = self.correlations.pop(token, None) if self.correlations else None
        if found:
            self.link.keep(-len(found))
        return found

    def let_go(self) -> None:
        """Nothing hangs on the channel any more: its connection is gone, and requests on their way still know it."""
        self.delivery = self.correlations = self.awaited = self.late = self.newest = None
        self.replies = {}

    def wait_for(self, pos: int, correlation: bytes) -> None:
        """A `sent` item is to have this Correlation Data when it is offered."""
        if self.awaited is None:
            self.awaited = {}
        self.awaited[pos] = correlation
        self.link.keep(len(correlation))

    def came(self, pos: int) -> bytes | None:
        """The Correlation Data of a `sent` item, which was offered."""
        found = self.awaited.pop(pos, None) if self.awaited else None
        if found:
            self.link.keep(-len(found))
        return found


def _to_keep(reply: Reply) -> Reply:
    """Without its text where that shows messages, which may be gone when it is sent again."""
    return reply if reply.again is None else reply._replace(text=b"")
