"""amqtt's plugins, for those who bring their own: authentication, topic filters and events, all off the hot path.

They see logins and plain topics. Nothing under the prefix is shown to them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from amqtt.broker import RetainedApplicationMessage
from amqtt.contexts import Action
from amqtt.events import BrokerEvents
from amqtt.session import Session as AmqttSession

from mqtt_im.transport.api import Login
from mqtt_im.transport.embedded.sessions.session import Key, Session
from mqtt_im.transport.embedded.sessions.sharing import Group, Part


class Broker(Protocol):
    """What is asked of amqtt's broker."""

    plugins_manager: Any

    async def authenticate(self, session: AmqttSession) -> bool:
        """What the authentication plugins say together."""

    async def allows(self, session: AmqttSession, topic: str, action: Action) -> bool:
        """What the topic plugins say together."""


class Client(Protocol):
    """What plugins learn of a client."""

    user: str
    key: Key | None


class Plugins:
    """Asks and tells the plugins of one broker."""

    def __init__(self, broker: Broker, background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """`background` runs what nobody awaits."""
        self._background = background
        self._broker = broker
        manager = broker.plugins_manager
        self._authenticates = bool(manager._auth_plugins)  # noqa: SLF001 - see tests/unit/transport/test_amqtt_pins.py
        self._events = frozenset(manager._event_plugin_callbacks)  # noqa: SLF001 - the same
        self.filter_topics = bool(manager._topic_plugins)  # noqa: SLF001 - the same
        """Some plugin has a say about topics."""

    async def authenticate(self, login: Login) -> bool:
        """Whether the authentication plugins, where there are any, accept a login too."""
        if not self._authenticates:
            return True
        session = AmqttSession()
        session.client_id, session.username, session.remote_address = login.client_id, login.username, login.address
        session.password = login.password.decode(errors="replace") if login.password is not None else None
        return await self._broker.authenticate(session)

    async def may_publish(self, user: str, key: Key | None, topic: str) -> bool:
        """Whether the topic plugins let this client publish a plain message."""
        return await self._allowed(user, key, topic, Action.PUBLISH)

    async def may_subscribe(self, connection: Client, topic_filter: str) -> bool:
        """Whether the topic plugins let this client subscribe to a plain filter."""
        return await self._allowed(connection.user, connection.key, topic_filter, Action.SUBSCRIBE)

    async def who_may_receive(
        self, subscribers: dict[Session | Group, list[int]], topic: str
    ) -> dict[Session | Group, list[int]]:
        """Those of the subscribers whom the topic plugins let receive a plain message: of a group those of its members."""
        allowed: dict[Session | Group, list[int]] = {}
        for subscriber, options in subscribers.items():
            if not isinstance(subscriber, Group):
                if await self.may_receive(subscriber, topic):
                    allowed[subscriber] = options
                continue
            everybody = list(subscriber.members.items())
            members = {session: own for session, own in everybody if await self.may_receive(session, topic)}
            if members:
                allowed[Part(subscriber, members)] = options
        return allowed

    async def may_receive(self, session: Session, topic: str) -> bool:
        """Whether the topic plugins let the client of this session have what comes on a plain topic."""
        return await self._allowed(session.key[0], session.key, topic, Action.RECEIVE)

    async def _allowed(self, user: str, key: tuple[str, str] | None, topic: str, action: Action) -> bool:
        if not self.filter_topics:
            return True
        return await self._broker.allows(self._describe(user, key), topic, action)

    @staticmethod
    def _describe(user: str, key: tuple[str, str] | None) -> AmqttSession:
        session = AmqttSession()
        session.client_id = key[1] if key is not None else ""
        session.username = user or None
        return session

    def connected(self, connection: Client) -> None:
        """A client has been let in."""
        self._tell_of(BrokerEvents.CLIENT_CONNECTED, connection)

    def disconnected(self, connection: Client) -> None:
        """A client has gone."""
        self._tell_of(BrokerEvents.CLIENT_DISCONNECTED, connection)

    def subscribed(self, connection: Client, topic_filter: str, qos: int) -> None:
        """A plain filter was granted."""
        if BrokerEvents.CLIENT_SUBSCRIBED in self._events and connection.key is not None:
            self._tell(BrokerEvents.CLIENT_SUBSCRIBED, client_id=connection.key[1], topic=topic_filter, qos=qos)

    def unsubscribed(self, connection: Client, topic_filter: str) -> None:
        """A plain filter was given back."""
        if BrokerEvents.CLIENT_UNSUBSCRIBED in self._events and connection.key is not None:
            self._tell(BrokerEvents.CLIENT_UNSUBSCRIBED, client_id=connection.key[1], topic=topic_filter)

    def retained(self, topic: str, payload: bytes, qos: int) -> None:
        """What is retained on a plain topic has changed; an empty payload says that nothing is any more."""
        if BrokerEvents.RETAINED_MESSAGE in self._events:
            message = RetainedApplicationMessage(None, topic, payload, qos)
            self._tell(BrokerEvents.RETAINED_MESSAGE, client_id=None, retained_message=message)

    def _tell_of(self, event: BrokerEvents, connection: Client) -> None:
        if event in self._events and connection.key is not None:
            session = self._describe(connection.user, connection.key)
            self._tell(event, client_id=connection.key[1], client_session=session)

    def _tell(self, event: BrokerEvents, **details: Any) -> None:
        self._background(self._broker.plugins_manager.fire_event(event, **details))
