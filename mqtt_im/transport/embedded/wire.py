"""What is written to a socket: PUBLISH of both versions, within what the client takes, and gathered for one write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from mqtt_im.mqtt import V5, V311, encode
from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt.properties import with_length
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.socket import Socket

UNLIMITED: Final = 0x1_0000
"""More packets than there are identifiers."""
_MOST_ALIASES: Final = 16
_GATHER: Final = 64 * 1024
"""Bytes that are gathered for one write before it is made without waiting for the end of the loop's turn."""
_LONGEST_ALIASED: Final = 256
"""Bytes of a topic that gets an alias: who publishes chooses it, and it stays with those who are sent it."""
_STALLED_S: Final = 60.0
"""A client that takes nothing off its full write buffer for so long is gone (or one and a half keep-alives, if less)."""


class Wire(Socket):
    """The output of a connection."""

    __slots__ = (
        "_alias_maximum",
        "_out",
        "_out_bytes",
        "_reserved",
        "_stalled",
        "_stalled_bytes",
        "_unacked",
        "_unread",
        "_untold",
        "aliases",
        "identified",
        "max_packet",
        "room",
        "version",
    )

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self.version = V311
        self.room = UNLIMITED
        self.max_packet = 0
        self.aliases: dict[bytes, bytes] | None = None
        """Topics that have an alias towards the client → that property."""
        self._alias_maximum = 0
        self._reserved: set[bytes]
        """Topics that are to have an alias, and have none yet."""
        self._untold: set[bytes]
        """Those of them that the client has not been told."""
        self.identified = False
        """Something is subscribed with a Subscription Identifier."""
        self._unacked: set[int] | None = None
        """Packet identifiers that count against the client's Receive Maximum; None where it has none."""
        self._unread = 0
        """Bytes that are held for a client that does not read."""
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None
        self._stalled_bytes = 0

    def answer(self, packet: bytes) -> None:
        """Write one packet; the writes of one loop turn leave together."""
        out = self._out
        if not out:
            self.hub.flush_soon(self)
        out.append(packet)

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
    ) -> bool:
        """Write one PUBLISH under the prefix: QoS 1 with `packet_id`, QoS 0 where it is 0; see `Link`."""
        first = (0x32 if packet_id else 0x30) | (dup and 0x08) | retain
        if self.version == V5:
            if self.identified:
                properties = self.identifiers(topic) + properties
            return self._publish5(first, topic, payload, packet_id, properties)
        self._publish(first, topic, payload, packet_id)
        return True

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
        """Write one PUBLISH of any QoS; see `Receiver`."""
        first = 0x30 | (dup and 0x08) | qos << 1 | retain
        if not qos and not self.writable:
            self.hub.count("plain_dropped")
        elif self.version == V5:
            return self._publish5(first, topic, payload, packet_id, properties)
        else:
            self._publish(first, topic, payload, packet_id)
        return True

    def identifiers(self, topic: bytes) -> bytes:
        """The Subscription Identifiers of what a topic under the prefix is subscribed by, encoded (MQTT5-3.3.4-3 to -5)."""
        return b""

    def _publish5(self, first: int, topic: bytes, payload: bytes, packet_id: int, properties: bytes) -> bool:
        """Write a PUBLISH of MQTT 5; False where it is larger than the client takes (MQTT5-3.1.2-24)."""
        if self.closed:
            return True
        told = b""
        if self.aliases is not None and (alias := self._alias(topic)):
            properties += alias
            if topic in self._untold:
                told = topic
            else:
                topic = b""
        size = len(topic)
        middle = with_length(properties) if properties else b"\0"
        if packet_id:
            middle = packet_id.to_bytes(2, "big") + middle
        length = 2 + size + len(middle) + len(payload)
        if length < 0x80:
            head = bytes((first, length, size >> 8, size & 0xFF))
        elif length < 0x4000:
            head = bytes((first, length & 0x7F | 0x80, length >> 7, size >> 8, size & 0xFF))
        else:
            head = encode.publish_head(first, size, length - 2 - size)
        if self.max_packet and len(head) - 2 + length > self.max_packet:
            return False
        if told:
            self._untold.discard(told)
        if self._unacked is not None and packet_id and packet_id not in self._unacked:
            self._unacked.add(packet_id)
            self.room -= 1
        out = self._out
        if not out:
            self.hub.flush_soon(self)
        out += (head, topic, middle, payload)
        self._out_bytes += length
        if self._out_bytes > _GATHER:
            self.flush()
        return True

    def limit_room(self, maximum: int) -> None:
        """From now on at most so many packets above QoS 0 are with the client at a time (MQTT5-3.3.4-9)."""
        self.room = maximum
        self._unacked = set()

    def occupy(self, packet_id: int) -> None:
        """A packet identifier of a former connection is in use here too."""
        if self._unacked is not None and packet_id not in self._unacked:
            self._unacked.add(packet_id)
            self.room -= 1

    def vacate(self, packet_id: int) -> bool:
        """The client has acknowledged a packet; returns whether there is room again where there was none."""
        if self._unacked is None or packet_id not in self._unacked:
            return False
        self._unacked.discard(packet_id)
        self.room += 1
        return self.room == 1

    def allow_aliases(self, maximum: int) -> None:
        """The client lets so many topics be shortened (MQTT5-3.3.2.3.4)."""
        self._alias_maximum = min(maximum, _MOST_ALIASES)
        if maximum:
            self.aliases = {}
            self._untold, self._reserved = set(), set()

    def reserve_aliases(self, topics: Iterable[bytes]) -> None:
        """These topics get an alias before any others do."""
        if self.aliases is not None:
            self._reserved = set(topics).difference(self.aliases)

    def _alias(self, topic: bytes) -> bytes:
        """The alias of a topic as a property, a new one where there is one left; empty for none."""
        assert self.aliases is not None
        alias = self.aliases.get(topic, b"")
        if (
            not alias
            and len(topic) <= _LONGEST_ALIASED
            and len(self.aliases) + (0 if topic in self._reserved else len(self._reserved)) < self._alias_maximum
        ):
            alias = self.aliases[topic] = props.one(props.TOPIC_ALIAS, len(self.aliases) + 1)
            self._reserved.discard(topic)
            self._untold.add(topic)
        return alias

    def _publish(self, first: int, topic: bytes, payload: bytes, packet_id: int) -> None:
        """Write a PUBLISH of MQTT 3.1.1."""
        if self.closed:
            return
        size = len(topic)
        length = 2 + size + len(payload)
        if packet_id:
            length += 2
            payload = packet_id.to_bytes(2, "big") + payload
        out = self._out
        if not out:
            self.hub.flush_soon(self)
        if length < 0x80:
            out += (bytes((first, length, size >> 8, size & 0xFF)), topic, payload)
        elif length < 0x4000:
            out += (bytes((first, length & 0x7F | 0x80, length >> 7, size >> 8, size & 0xFF)), topic, payload)
        else:
            out += (encode.publish_head(first, size, length - 2 - size), topic, payload)
        self._out_bytes += length
        if self._out_bytes > _GATHER:
            self.flush()

    def flush(self) -> bool:
        """See `Socket`."""
        out = self._out
        if not out or self.closed:
            return not self.closed
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_bytes = 0
        transport = self.transport
        if not self.writable:
            unread = transport.get_write_buffer_size()
            if unread > self.hub.limits.max_write_buffer_bytes:
                self.hub.log.note("write_buffer", self.address, "%s does not read; its connection is cut", self)
                self.end("write_buffer", abort=True)
                return False
            self._is_unread(unread + len(data))
        transport.write(data)
        return True

    def _is_unread(self, size: int) -> None:
        """So much waits for a client that does not read."""
        if self.held < 0:
            return
        beyond = self.hub.unread.changed(self, size)
        if beyond != self._unread:
            beyond, self._unread = beyond - self._unread, beyond
            self.keep(beyond)

    def pause_writing(self) -> None:
        """The write buffer stands above its high-water mark."""
        self.writable = False
        self._stalled_bytes = self.transport.get_write_buffer_size()
        self._is_unread(self._stalled_bytes)
        self._stalled = self.hub.loop.call_later(min(self._keep_alive or _STALLED_S, _STALLED_S), self._check_stalled)

    def resume_writing(self) -> None:
        """The write buffer has drained below its low-water mark."""
        self.writable = True
        self._is_unread(0)
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _check_stalled(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= self._stalled_bytes:
            self.hub.log.note("not_reading", self.address, "%s does not read; its connection is cut", self)
            self.end("not_reading", abort=True)
            return
        self._stalled_bytes = left
        self._stalled = self.hub.loop.call_later(min(self._keep_alive or _STALLED_S, _STALLED_S), self._check_stalled)

    def write_no_more(self) -> None:
        """See `Socket`."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._out.clear()
