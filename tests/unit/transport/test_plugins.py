"""amqtt's own plugins are still asked and told, off the hot path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session

from tests.support import packets
from tests.support.packets import Will
from tests.unit.transport.harness import Server, on_loop


class NotMallory(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    async def authenticate(self, *, session: Session) -> bool | None:
        return bool(session.username != "mallory")


class Topics(BaseTopicPlugin):  # type: ignore[misc]
    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        assert session is not None
        return (session.username, topic, action) not in {
            ("alice", "a/private", Action.PUBLISH),
            ("bob", "a/bobs", Action.SUBSCRIBE),
            ("bob", "a/hidden", Action.RECEIVE),
        }


class Witness(BasePlugin[BaseContext]):  # type: ignore[misc]
    seen: ClassVar[list[tuple[Any, ...]]] = []

    @dataclass
    class Config:
        name: str = "witness"

    async def on_broker_post_start(self) -> None:
        await self.context.retain_message("news", b"started")
        await self.context.retain_message("im/v1/alice/down", b"never")
        await self.context.broadcast_message("a/x", b"nobody is there yet")
        self.seen.append(("post_start",))

    async def on_broker_client_connected(self, client_id: str, client_session: Session) -> None:
        self.seen.append(("connected", client_id, client_session.username))

    async def on_broker_client_disconnected(self, client_id: str, client_session: Session) -> None:
        self.seen.append(("disconnected", client_id, client_session.username))

    async def on_broker_client_subscribed(self, client_id: str, topic: str, qos: int) -> None:
        self.seen.append(("subscribed", client_id, topic, qos))

    async def on_broker_client_unsubscribed(self, client_id: str, topic: str) -> None:
        self.seen.append(("unsubscribed", client_id, topic))

    async def on_broker_retained_message(self, *, client_id: str | None, retained_message: Any) -> None:
        self.seen.append(("retained", retained_message.topic, bytes(retained_message.data)))


def names(*plugins: type) -> dict[str, dict[str, Any]]:
    return {f"{plugin.__module__}.{plugin.__name__}": {} for plugin in plugins}


@on_loop
async def test_authentication_plugins_may_refuse_whom_the_bridge_lets_in(tmp_path: Path) -> None:
    async with Server(tmp_path, plugins=names(NotMallory)) as server:
        await server.connect("phone", "alice")
        client = await server.open()
        client.send(packets.connect("phone", username="mallory"))
        assert [packet.body for packet in await client.gone()] == [b"\x00\x05"]


@on_loop
async def test_topic_plugins_decide_about_plain_topics(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",), plugins=names(Topics)) as server:
        alice = await server.connect("phone", "alice", will=Will("a/private", b"no"))
        bob = await server.connect("phone", "bob")
        assert await bob.subscribe(("a/bobs", 1), ("a/#", 1), ("im/v1/bob/down", 1)) == [0x80, 1, 1]
        for number, topic in enumerate(("a/private", "a/hidden", "a/open"), start=1):
            alice.send(packets.publish(topic, topic.encode(), packet_id=number))
        for number in (1, 2, 3):
            await alice.expect(packets.PUBACK, number)
        assert (await bob.message()).topic == "a/open"
        await alice.close()
        await server.counted("closes:lost")
        await bob.silent()
        other = await server.connect("phone", "alice", will=Will("a/open", b"a will"))
        await other.close()
        assert (await bob.message()).payload == b"a will"


@on_loop
async def test_event_plugins_are_told_and_may_publish(tmp_path: Path) -> None:
    Witness.seen.clear()
    async with Server(tmp_path, plain_topics=("#",), plugins=names(Witness)) as server:
        assert ("post_start",) in Witness.seen
        assert set(server.hub.plain.retained.messages) == {"news"}
        client = await server.connect()
        await client.subscribe(("news", 1), ("im/v1/alice/down", 1))
        assert (await client.message()).payload == b"started"
        client.send(packets.publish("b", b"kept", packet_id=4, retain=True))
        await client.expect(packets.PUBACK, 4)
        client.send(packets.unsubscribe(5, "news"))
        await client.expect(packets.UNSUBACK, 5)
        await client.disconnect()
    assert Witness.seen[-5:] == [
        ("connected", "phone", "alice"),
        ("subscribed", "phone", "news", 1),
        ("retained", "b", b"kept"),
        ("unsubscribed", "phone", "news"),
        ("disconnected", "phone", "alice"),
    ]


@pytest.mark.filterwarnings("ignore:.*psutil:DeprecationWarning")
@on_loop
async def test_amqtts_sys_plugin_works_and_its_topics_show_to_who_may_see_them(tmp_path: Path) -> None:
    plugin = {"amqtt.plugins.sys.broker.BrokerSysPlugin": {"sys_interval": 1}}
    async with Server(tmp_path, plain_topics=("#", "$SYS/#"), plugins=plugin) as server:
        client = await server.connect()
        assert await client.subscribe(("$SYS/broker/version", 0), ("#", 0)) == [0, 0]
        assert b"aMQTT" in (await client.message()).payload
        await client.subscribe(("$SYS/broker/clients/#", 0))
        seen = {(await client.message()).topic for _ in range(4)}
        assert "$SYS/broker/clients/connected" in seen
