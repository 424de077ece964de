"""The names of amqtt that `transport/embedded` leans on, private ones too: each is there and does what we need.

amqtt is pinned to one version. Whoever moves the pin runs these first.
"""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from typing import Any, ClassVar

import pytest
from amqtt.broker import Broker, BrokerContext, RetainedApplicationMessage, Server
from amqtt.contexts import Action, BaseContext, BrokerConfig, ListenerConfig, ListenerType
from amqtt.events import BrokerEvents
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session

from tests.unit.transport.harness import on_loop


def broker(**options: Any) -> Broker:
    return Broker(BrokerConfig(listeners={"default": ListenerConfig(bind=None), **options.pop("listeners", {})}, plugins=options))


def test_the_version_is_the_one_that_was_looked_into() -> None:
    assert version("amqtt") == "0.12.1"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_create_server_instance", ["listener_name", "listener_type", "address", "port", "ssl_context"]),
        ("_broadcast_message", ["session", "topic", "data", "force_qos"]),
        ("retain_message", ["source_session", "topic_name", "data", "qos"]),
        ("_authenticate", ["session", "_"]),
        ("_topic_filtering", ["session", "topic", "action"]),
        ("start", []),
        ("shutdown", []),
    ],
)
def test_methods_we_call_or_replace_have_the_shape_we_know(method: str, parameters: list[str]) -> None:
    function = getattr(Broker, method)
    assert inspect.iscoroutinefunction(function)
    assert list(inspect.signature(function).parameters)[1:] == parameters


@on_loop
async def test_every_listener_but_the_default_without_an_address_asks_for_a_server() -> None:
    asked: list[tuple[Any, ...]] = []

    class Asking(Broker):  # type: ignore[misc]  # amqtt has no types
        async def _create_server_instance(self, *arguments: Any) -> asyncio.Server:
            asked.append(arguments)
            return await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)

    listeners = {
        "default": ListenerConfig(bind=None),
        "one": ListenerConfig(type=ListenerType.TCP, bind="127.0.0.1:1"),
        "six": ListenerConfig(type=ListenerType.WS, bind="[::1]:2"),
    }
    stock = Asking(BrokerConfig(listeners=listeners, plugins={}))
    await stock.start()
    assert asked == [("one", ListenerType.TCP, "127.0.0.1", 1, None), ("six", ListenerType.WS, "[::1]", 2, None)]
    assert set(stock._servers) == {"one", "six"}
    assert all(isinstance(server, Server) and isinstance(server.instance, object) for server in stock._servers.values())
    await stock.shutdown()


@on_loop
async def test_what_plugins_publish_and_retain_comes_through_two_methods() -> None:
    class Catching(Broker):  # type: ignore[misc]
        caught: ClassVar[list[tuple[Any, ...]]] = []

        async def _broadcast_message(self, *arguments: Any) -> None:
            self.caught.append(("publish", *arguments))

        async def retain_message(self, *arguments: Any) -> None:
            self.caught.append(("retain", *arguments))

    stock = Catching(BrokerConfig(listeners={"default": ListenerConfig(bind=None)}, plugins={}))
    context = stock.plugins_manager.context
    assert isinstance(context, BrokerContext)
    await context.broadcast_message("a", b"1", 1)
    await context.retain_message("b", b"2", None)
    assert Catching.caught == [("publish", None, "a", b"1", 1), ("retain", None, "b", b"2", None)]


@on_loop
async def test_what_plugins_see_as_retained_is_a_property_that_we_replace() -> None:
    assert isinstance(Broker.retained_messages, property)
    stock = broker()
    stock._retained_messages["a"] = RetainedApplicationMessage(None, "a", b"x", 1)
    assert stock.plugins_manager.context.retained_messages["a"].data == b"x"


class Auth(BaseAuthPlugin):  # type: ignore[misc]
    async def authenticate(self, *, session: Session) -> bool | None:
        return {"yes": True, "no": False}.get(session.username or "")


class Topic(BaseTopicPlugin):  # type: ignore[misc]
    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        return topic == f"may {action}"


class Event(BasePlugin[BaseContext]):  # type: ignore[misc]
    seen: ClassVar[list[str]] = []

    async def on_broker_client_connected(self, client_id: str, client_session: Session) -> None:
        self.seen.append(client_id)


@on_loop
async def test_the_plugin_manager_has_its_plugins_by_kind_and_asks_them() -> None:
    stock = broker(**{f"{kind.__module__}.{kind.__name__}": {} for kind in (Auth, Topic, Event)})
    manager = stock.plugins_manager
    assert [type(plugin).__name__ for plugin in manager._auth_plugins] == ["Auth"]
    assert [type(plugin).__name__ for plugin in manager._topic_plugins] == ["Topic"]
    assert list(manager._event_plugin_callbacks) == [BrokerEvents.CLIENT_CONNECTED]
    for name, expected in (("yes", True), ("no", False), ("unknown", False)):
        session = Session()
        session.username = name
        assert await stock._authenticate(session, stock.listeners_config["default"]) is expected
    for action in Action:
        assert await stock._topic_filtering(Session(), f"may {action}", action)
        assert not await stock._topic_filtering(Session(), "may not", action)
    await manager.fire_event(BrokerEvents.CLIENT_CONNECTED, wait=True, client_id="x", client_session=Session())
    assert Event.seen == ["x"]
    await manager.close()


@on_loop
async def test_no_plugins_configured_means_none_loaded() -> None:
    manager = broker().plugins_manager
    assert not manager.plugins
    assert not manager._auth_plugins
    assert not manager._topic_plugins
    assert not manager._event_plugin_callbacks


def test_sessions_for_plugins_have_the_fields_that_we_fill() -> None:
    session = Session()
    for name in ("client_id", "username", "password", "remote_address"):
        assert getattr(session, name) is None


def test_events_that_we_tell_of() -> None:
    names = ["CLIENT_CONNECTED", "CLIENT_DISCONNECTED", "CLIENT_SUBSCRIBED", "CLIENT_UNSUBSCRIBED", "RETAINED_MESSAGE"]
    assert [getattr(BrokerEvents, name).value for name in names] == [
        "broker_client_connected",
        "broker_client_disconnected",
        "broker_client_subscribed",
        "broker_client_unsubscribed",
        "broker_retained_message",
    ]
