"""amqtt's broker with our connections under it.

amqtt keeps its listener configuration, its start and stop, its plugin manager and what plugins see of the broker. Everything
that touches a client is ours: each listener makes our own protocol objects, and what plugins publish or retain goes
through our routing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amqtt.broker import Broker, RetainedApplicationMessage
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import PluginError, PluginLoadError
from amqtt.session import Session as AmqttSession

from mqtt_im.protocol.errors import MqttImError
from mqtt_im.transport.accepting import AT_ONCE, ask_after, let_wait
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from mqtt_im.transport.embedded.sessions.retained import RetainedMessage


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that is bound, and what talks to those who connect to it."""

    socket: socket.socket
    type: ListenerType
    protocol: Callable[[], asyncio.BaseProtocol]


class EmbeddedBroker(Broker):  # type: ignore[misc]  # amqtt has no types
    """An amqtt broker whose listeners speak through `Connection`."""

    def __init__(self, hub: Hub, listeners: Mapping[str, Listener], plugins: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises `MqttImError` where a plugin cannot be used, with its name in the text."""
        self._hub = hub
        self._our_listeners = listeners
        # amqtt wants a listener of this name; without an address it is only what the others inherit from.
        configured = {"default": ListenerConfig(bind=None)}
        for name, listener in listeners.items():
            host, port = listener.socket.getsockname()[:2]
            bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            configured[name] = ListenerConfig(type=listener.type, bind=bind)
        try:
            super().__init__(BrokerConfig(listeners=configured, plugins={name: dict(given) for name, given in plugins.items()}))
        except (PluginError, PluginLoadError) as error:
            why = f"{error}: {error.__cause__}" if error.__cause__ is not None else f"{error}"
            raise MqttImError("start", f"mqtt.plugins: {why.removeprefix(': ')}") from error

    async def _create_server_instance(
        self,
        listener_name: str,
        listener_type: ListenerType,
        address: str | None,
        port: int,
        ssl_context: ssl.SSLContext | None,
    ) -> asyncio.Server:
        """Listen on a socket that is bound already, and speak through our protocol."""
        listener = self._our_listeners[listener_name]
        loop = asyncio.get_running_loop()
        server = await loop.create_server(listener.protocol, sock=listener.socket, backlog=AT_ONCE)
        let_wait(listener.socket)
        ask_after(listener.socket)
        return server

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections stay."""
        for server in self._servers.values():
            server.instance.close()

    async def authenticate(self, session: AmqttSession) -> bool:
        """What the authentication plugins say together."""
        return bool(await self._authenticate(session, self.listeners_config["default"]))

    async def allows(self, session: AmqttSession, topic: str, action: Action) -> bool:
        """What the topic plugins say together."""
        return bool(await self._topic_filtering(session, topic, action))

    async def _broadcast_message(
        self,
        session: AmqttSession | None,
        topic: str | None,
        data: bytes | bytearray | None,
        force_qos: int | None = None,
    ) -> None:
        """A plugin publishes."""
        if topic and self._hub.access.plain.is_open(topic):
            plain, plugins = self._hub.plain, self._hub.plugins
            targets = await plugins.who_may_receive(plain.subscribers(topic), topic) if plugins.filter_topics else None
            plain.publish(PlainMessage(topic, bytes(data or b""), force_qos or 0, retain=False), targets=targets)

    async def retain_message(
        self,
        source_session: AmqttSession | None,
        topic_name: str | None,
        data: bytes | bytearray | None,
        qos: int | None = None,
    ) -> None:
        """A plugin retains a message; an empty one removes it."""
        if topic_name and not self._hub.topics.owns(topic_name):
            self._hub.plain.retained.keep(topic_name, RetainedMessage(bytes(data or b""), qos or 0))

    @property
    def retained_messages(self) -> dict[str, RetainedApplicationMessage]:
        """What is retained on plain topics."""
        return {
            topic: RetainedApplicationMessage(None, topic, message.payload, message.qos)
            for topic, message in self._hub.plain.retained.messages.items()
        }
