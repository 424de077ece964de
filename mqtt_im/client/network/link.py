"""One MQTT connection: a fresh paho client on a `Stream`. It says what comes, and sends what it is told to.

paho's own queues, keep-alive and reconnects are not used: what is sent again, and when, is the session's to decide.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from .stream import Stream

_log = logging.getLogger(__name__)

Version = Literal[3, 5]
_SESSION_EXPIRY: Final = 0xFFFF_FFFF
"""As long as the server keeps any."""
_DOWN_ALIASES: Final = 8
_UP_ALIAS: Final = 1
_SLICE_S: Final = 0.003
"""So long the loop is kept at a time with what has come."""
_PIECE: Final = 1024
"""Bytes after which the time is looked at."""
UNSUPPORTED_VERSION: Final = 0x84


@dataclass(frozen=True, slots=True)
class Accepted:
    """What CONNACK said, in MQTT 5's words whatever the version."""

    code: int
    """Reason code: 0, or why not."""
    reason: str
    session_present: bool
    receive_maximum: int | None = None
    maximum_packet: int | None = None
    keep_alive: int | None = None


class _Paho(paho.Client):
    """paho on a stream that is there already. What this leans on beyond paho's promises is pinned by a test."""

    def __init__(self, stream: Stream, **options: Any) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, reconnect_on_failure=False, manual_ack=True, **options)
        self._stream = stream
        self.on_pingresp: Callable[[], None] = lambda: None

    def _create_socket(self) -> Any:
        return self._stream

    def _handle_pingresp(self) -> MQTTErrorCode:
        self.on_pingresp()
        return super()._handle_pingresp()

    def ping(self) -> None:
        """Send a PINGREQ."""
        self._send_pingreq()


class Link:
    """See the module. The callbacks are set before `start`; `on_lost` comes once, last, with why and a reason code or 0."""

    def __init__(self, stream: Stream, version: Version, device: str, user: str, password: str | None, keepalive: int) -> None:
        self.version = version
        self.on_accepted: Callable[[Accepted], None] = lambda _accepted: None
        self.on_publish: Callable[[str, bytes, int], None] = lambda _topic, _payload, _packet_id: None
        self.on_puback: Callable[[int, int, str], None] = lambda _token, _code, _reason: None
        self.on_suback: Callable[[int, list[int]], None] = lambda _token, _codes: None
        self.on_pong: Callable[[], None] = lambda: None
        self.on_bytes: Callable[[int], None] = lambda _count: None
        self.on_lost: Callable[[str, int], None] = lambda _why, _code: None
        self._stream = stream
        self._tokens: dict[int, int] = {}
        self._aliases: dict[int, str] = {}
        self._may_alias = False
        self._aliased: str | None = None
        self._ended = False
        self._working = False
        """There are bytes that wait for the next turn of the loop."""
        self._keepalive = keepalive
        options: dict[str, Any] = {"client_id": device}
        if version == 5:
            options["protocol"] = paho.MQTTv5
        else:
            options.update(protocol=paho.MQTTv311, clean_session=False)
        client = self._client = _Paho(stream, **options)
        client.username_pw_set(user, password)
        client.max_inflight_messages_set(0)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_pingresp = self._on_pingresp
        stream.on_bytes = self._on_bytes
        stream.on_end = self._on_end

    def start(self) -> None:
        """Send CONNECT."""
        properties = None
        if self.version == 5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = _SESSION_EXPIRY
            properties.TopicAliasMaximum = _DOWN_ALIASES
            self._client.connect_async("stream", 1, self._keepalive, clean_start=False, properties=properties)
        else:
            self._client.connect_async("stream", 1, self._keepalive)
        self._client.reconnect()

    def publish(self, token: int, topic: str, payload: bytes, qos: int) -> int:
        """Send a PUBLISH; returns its bytes, about. At QoS 1 its PUBACK is told with `token`."""
        properties = None
        size = len(payload) + len(topic) + 7
        if self._may_alias:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.TopicAlias = _UP_ALIAS
            if self._aliased == topic:
                size -= len(topic)
                topic = ""
            else:
                self._aliased = topic
        info = self._client.publish(topic, payload, qos, properties=properties)
        if qos:
            self._tokens[info.mid] = token
        return size

    def subscribe(self, token: int, filters: tuple[str, ...]) -> int:
        """Send a SUBSCRIBE at QoS 1; its SUBACK is told with `token`. Returns its bytes, about."""
        wanted: list[Any] = [(name, SubscribeOptions(qos=1)) for name in filters]
        _, packet_id = self._client.subscribe(wanted if self.version == 5 else [(name, 1) for name in filters])
        if packet_id is not None:
            self._tokens[packet_id] = token
        return sum(len(name) + 3 for name in filters) + 5

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Send an UNSUBSCRIBE."""
        self._client.unsubscribe(list(filters))

    def acknowledge(self, packet_id: int) -> None:
        """Send the PUBACK of a packet that came."""
        self._client.ack(packet_id, 1)

    def ping(self) -> None:
        """Send a PINGREQ."""
        self._client.ping()

    def disconnect(self) -> None:
        """Send DISCONNECT and end it, what was sent before first."""
        if not self._ended:
            self._client.disconnect()
        self._stream.close()

    def abort(self, why: str) -> None:
        """End it at once: it is of no use any more."""
        self._lose(why, 0)

    # What paho tells

    def _on_bytes(self, count: int) -> None:
        self.on_bytes(count)
        if not self._working:
            self._work(time.perf_counter() + _SLICE_S)

    def _go_on(self) -> None:
        self._working = False
        self._work(time.perf_counter() + _SLICE_S)

    def _work(self, until: float) -> None:
        """Take in what has come; what is left when the time is over waits for the next turn of the loop."""
        try:
            while self._stream.pending() and not self._ended:
                before, self._stream.allowed = self._stream.pending(), _PIECE
                code = self._client.loop_read()
                if code or self._stream.pending() == before:
                    break
                if time.perf_counter() > until and self._stream.pending():
                    self._working = True
                    asyncio.get_running_loop().call_soon(self._go_on)
                    break
            if self._client.want_write() and not self._ended:
                self._client.loop_write()  # what was sent from a callback waits for it
        except Exception as error:  # noqa: BLE001 - whatever the bytes did to paho, this connection is over
            _log.warning("the server's bytes can't be read: %r", error, exc_info=True)
            self._lose(f"the server's bytes can't be read: {error!r}", 0)

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._ended:
            return
        code = int(reason.value)
        self._may_alias = code == 0 and getattr(properties, "TopicAliasMaximum", 0) >= _UP_ALIAS
        self.on_accepted(
            Accepted(
                code,
                getattr(properties, "ReasonString", None) or str(reason),
                bool(flags.session_present),
                getattr(properties, "ReceiveMaximum", None),
                getattr(properties, "MaximumPacketSize", None),
                getattr(properties, "ServerKeepAlive", None),
            )
        )

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if self._ended:
            return
        topic = message.topic
        alias = getattr(message.properties, "TopicAlias", None)
        if alias is not None:
            if topic:
                self._aliases[alias] = topic
            else:
                topic = self._aliases.get(alias, "")
        self.on_publish(topic, bytes(message.payload), message.mid if message.qos else 0)

    def _on_publish(self, _client: Any, _data: Any, packet_id: int, reason: Any, properties: Any) -> None:
        token = self._tokens.pop(packet_id, None)
        if token is not None and not self._ended:
            self.on_puback(token, int(reason.value), getattr(properties, "ReasonString", None) or "")

    def _on_subscribe(self, _client: Any, _data: Any, packet_id: int, reasons: Any, _properties: Any) -> None:
        token = self._tokens.pop(packet_id, None)
        if token is not None and not self._ended:
            self.on_suback(token, [int(reason.value) for reason in reasons])

    def _on_pingresp(self) -> None:
        self.on_pong()

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            words = getattr(properties, "ReasonString", None) or str(reason)
            self._lose(f"the server has ended the connection: {words}", int(reason.value) if reason is not None else 0)
        else:
            self._lose(str(reason), 0)

    def _on_end(self, error: Exception | None) -> None:
        if self._working:
            self._work(math.inf)  # perhaps it says why
        self._lose(f"the connection broke: {error}" if error is not None else "the connection was closed", 0)

    def _lose(self, why: str, code: int) -> None:
        if self._ended:
            return
        self._ended = True
        self._stream.abort()
        self.on_lost(why, code)
