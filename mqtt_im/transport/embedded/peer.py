"""A client that is let in, and what it has: its name, its session, its will. What its packets do stands above this file."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from mqtt_im.mqtt import V5, encode, reasons
from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt.packets import Connect, Will
from mqtt_im.mqtt.reasons import Malformed
from mqtt_im.mqtt.topics import matches
from mqtt_im.transport.api import Lease
from mqtt_im.transport.embedded.answers import Answers
from mqtt_im.transport.embedded.buckets import Bucket
from mqtt_im.transport.embedded.farewells import DISCONNECTS
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.limits import PerMinute
from mqtt_im.transport.embedded.sessions.session import IDENTIFIER_SHIFT, Key, Session

MAX_TURNED_AWAY: Final = 64
"""Sockets at a time that stay until their CONNECT has come, to be told why they are refused."""
TOPIC_ALIASES: Final = 16
"""Topics that a client may shorten at a time."""


class Peer(Answers):
    """A socket, and once it is logged in the `Link` of a device."""

    __slots__ = (
        "_identifiers",
        "_plain_first",
        "_up",
        "bucket",
        "clean",
        "device",
        "device_qos",
        "forbidden",
        "incoming_aliases",
        "key",
        "last_words",
        "lease",
        "login",
        "mqtt_session",
        "opened",
        "resumed",
        "session",
        "since",
        "turned_away",
        "user",
        "user_qos",
        "will",
    )

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self.user = ""
        """Empty for nobody."""
        self.device = ""
        """Empty for a plain client."""
        self.login: asyncio.Task[Any] | None = None
        """The task in which it is being found out who this is; ended with the connection."""
        self.key: Key | None = None
        self.session = ""
        self.mqtt_session: Session | None = None
        self.lease: Lease | None = None
        self.since = 0
        self.clean = True
        self.resumed = False
        self.user_qos = -1
        self.device_qos = -1
        self.will: Will | None = None
        self.opened = False
        """CONNACK has been written."""
        self.bucket: Bucket
        self.forbidden: PerMinute | None = None
        self.last_words = 0
        """The reason code of DISCONNECT where it is not that of the reason for the end."""
        self.incoming_aliases: dict[int, str] | None = None
        """Topic aliases that the client has set."""
        self._plain_first = False
        self._identifiers: dict[bytes, bytes] | None = None
        self._up = b""
        self.turned_away = ""
        """Why it will be refused whoever it is; it lives on only to be told so."""

    def __str__(self) -> str:
        who = f"{self.user or 'nobody'}/{self.device}" if self.device else self.user or "nobody"
        return f"{who} at {self.address}"

    @property
    def protocol(self) -> str:
        """See `Link`."""
        return ("mqtt5" if self.version == V5 else "mqtt3") + ("/ws" if self.listener in ("websocket", "http") else "")

    @property
    def own_session(self) -> Session:
        """The session of a client that was let in."""
        assert self.mqtt_session is not None
        return self.mqtt_session

    @property
    def party(self) -> str:
        """See `Wire`; once it is known, the user's."""
        return self.user or self.network or self.address

    def under_way(self, size: int) -> None:
        """See `Link`."""
        self.hub.under_way.add(self.party, size)

    # Beginning

    def wishes(self, connect: Connect) -> None:
        """Take over what CONNECT says of how the client wants to be served."""
        self.version = connect.version
        if connect.version != V5:
            return
        wanted = connect.properties
        self.max_packet = wanted.get(props.MAXIMUM_PACKET_SIZE, 0)
        self.explains = bool(wanted.get(props.REQUEST_PROBLEM_INFORMATION, 1))
        self.max_pending = self.hub.limits.max_inflight
        if props.RECEIVE_MAXIMUM in wanted:
            self.limit_room(wanted[props.RECEIVE_MAXIMUM])

    def attach(
        self, session: Session, resumed: bool, connect: Connect, assigned: str = "", keep_alive: int | None = None
    ) -> None:
        """The client is let in with this session: write CONNACK. Packets that were held are handled when the task ends.

        `assigned` is the client id where the server chose it, `keep_alive` the seconds where they are not what was asked for.
        """
        hub = self.hub
        if self.will is not None:
            self.keep(self.will.size)
        self.mqtt_session, self.session, self.resumed = session, session.id, resumed
        session.connection = self
        self.identified = any(options >> IDENTIFIER_SHIFT for options in session.filters.values())
        if self.device:
            up = hub.topics.up(self.user, self.device).encode()
            self._up = len(up).to_bytes(2, "big") + up
            if session.filters and session.rights is None:
                session.rights = hub.access.rights(session.filters, self.user, self.device)
            if session.rights is not None:
                self.user_qos, self.device_qos = session.rights.user_qos, session.rights.device_qos
        if self.version == V5:
            self._accept5(session, resumed, connect, assigned, keep_alive)
        else:
            self.answer(encode.connack(encode.ACCEPTED, resumed))
        self.opened = True

    def _accept5(self, session: Session, resumed: bool, connect: Connect, assigned: str, keep_alive: int | None) -> None:
        limits = self.hub.limits
        told: list[tuple[int, Any]] = [
            (props.RECEIVE_MAXIMUM, limits.max_inflight),
            (props.MAXIMUM_PACKET_SIZE, limits.max_packet_bytes),
            (props.TOPIC_ALIAS_MAXIMUM, TOPIC_ALIASES),
            (props.SHARED_AVAILABLE, 1),
        ]
        if session.expiry != connect.properties.get(props.SESSION_EXPIRY, 0):
            told.append((props.SESSION_EXPIRY, session.expiry))
        if assigned:
            told.append((props.ASSIGNED_CLIENT_ID, assigned))
        if keep_alive is not None:
            told.append((props.SERVER_KEEP_ALIVE, keep_alive))
        connack = encode.connack5(reasons.SUCCESS, resumed, props.encode(*told))
        if self.max_packet and len(connack) > self.max_packet:
            # Not even this much can be said (MQTT5-3.1.2-24).
            self.end("max_packet")
            return
        self.answer(connack)
        self.allow_aliases(connect.properties.get(props.TOPIC_ALIAS_MAXIMUM, 0))
        self._reserve()

    def _reserve(self) -> None:
        """The down topics that are subscribed come first where aliases are few."""
        topics = self.hub.topics
        down = [topics.user_down(self.user)] if self.user_qos >= 0 else []
        if self.device_qos >= 0:
            down.append(topics.device_down(self.user, self.device))
        self.reserve_aliases([topic.encode() for topic in down])

    def turn_down(self, code: int, code5: int, reason: str, *, text: str = "", told: bool = False) -> None:
        """Answer CONNECT with a refusal, in its version's code, and end; `told` says that the log has it already."""
        self.hub.count("connects_refused", reason=reason)
        if not told:
            self.hub.log.note(reason, self.address, "a CONNECT from %s is refused: %s", self.address, reason)
        if self.version == V5:
            answer = encode.connack5(code5, properties=props.one(props.REASON_STRING, text) if text and self.explains else b"")
            if self.max_packet and len(answer) > self.max_packet:
                answer = encode.connack5(code5)
            self.answer(answer)
        else:
            self.answer(encode.connack(code))
        self.end("refused")

    def may_be_told(self, reason: str) -> bool:
        """See `Wire`. Few of those who connect too often are told so, and only in MQTT 5."""
        if reason != "connects_per_second_per_address" or self.hub.turned_away >= MAX_TURNED_AWAY:
            return False
        self.hub.turned_away += 1
        self.turned_away = reason
        return True

    def room_again(self) -> None:
        """The client takes packets above QoS 0 again: items and plain messages have their turns at what there is."""
        self._plain_first = not self._plain_first
        if self._plain_first:
            self.hub.plain.streams.pump(self.own_session)
        if self.device:
            self.hub.handler.writable(self)
        self.hub.plain.streams.pump(self.own_session)

    # Under the prefix

    def identifiers(self, topic: bytes) -> bytes:
        """See `Wire`."""
        session = self.own_session
        if self._identifiers is None:
            self._identifiers = {}
        found = self._identifiers.get(topic)
        if found is None:
            name = topic.decode()
            found = b"".join(
                props.one(props.SUBSCRIPTION_IDENTIFIER, options >> IDENTIFIER_SHIFT)
                for topic_filter, options in session.filters.items()
                if options >> IDENTIFIER_SHIFT and self.hub.topics.owns(topic_filter) and matches(topic_filter, name)
            )
            self._identifiers[topic] = found
        return found

    def filters_changed(self) -> None:
        """The session's filters, and what they yield, are others now."""
        self._reserve()
        self._identifiers = None
        session = self.own_session
        self.identified = any(options >> IDENTIFIER_SHIFT for options in session.filters.values())

    # The end

    def farewell(self, reason: str) -> None:
        """See `Wire`."""
        if self.version != V5 or not self.opened:
            return
        code = self.last_words or DISCONNECTS.get(reason, 0)
        if reason == "moved" and self.hub.server_reference:
            where = props.one(props.SERVER_REFERENCE, self.hub.server_reference)
            self.answer(encode.disconnect(reasons.USE_ANOTHER_SERVER, where))
        elif code:
            self.answer(encode.disconnect(code))

    def violation(self, wrong: Malformed) -> None:
        """The client broke the protocol (MQTT-4.8.0-1, MQTT5-4.13.1-1)."""
        self.hub.count("malformed_packets", reason=wrong.reason)
        self.hub.log.note("malformed", self.address, "%s sent a malformed packet and is disconnected: %s", self, wrong.reason)
        self.last_words = wrong.code
        self.end("malformed")

    def close(self, reason: str) -> None:
        """Close the connection at once; `reason` is a word for logs and counters."""
        self.end(reason)

    def charge(self, units: float) -> None:
        """See `Link`."""
        self.bucket.charge(units, self.hub.clock())

    def owes(self) -> float:
        """See `Link`."""
        return self.bucket.owes(self.hub.clock())

    def meter(self, now: float, count: int = 1) -> None:
        """Count acknowledgements that nothing waited for; after very many of them the client's packets wait."""
        raise NotImplementedError

    def start(self, work: Coroutine[Any, Any, None], *, at_once: bool = False) -> None:
        """Handle a packet in a task; the packets behind it wait for its end. `at_once`: here, since it waits for nothing."""
        raise NotImplementedError

    def stop(self) -> None:
        """Handle nothing more: the server is stopping."""
        raise NotImplementedError
