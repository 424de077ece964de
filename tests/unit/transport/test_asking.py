"""A right that topic plugins gave when something was granted or routed must be there still when it is handed out."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BasePlugin, BaseTopicPlugin
from amqtt.session import Session

from tests.support import packets, packets5
from tests.unit.transport.harness import Client, Server, on_loop

Refusal = tuple[str | None, str | None, Action | None]


class Changing(BaseTopicPlugin):  # type: ignore[misc]  # amqtt has no types
    """Refuses what stands in `refused`, and fails where `fails` says so; both change while the server runs."""

    refused: ClassVar[set[Refusal]] = set()
    fails: ClassVar[set[str]] = set()
    asked: ClassVar[list[Refusal]] = []

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        assert session is not None
        self.asked.append((session.username, topic, action))
        if topic in self.fails:
            raise RuntimeError("told to")
        return (session.username, topic, action) not in self.refused


class Teller(BasePlugin[BaseContext]):  # type: ignore[misc]
    """Publishes when a client has come."""

    async def on_broker_client_connected(self, client_id: str, client_session: Session) -> None:
        await self.context.broadcast_message("a/told", b"told")


NAMES: dict[str, dict[str, object]] = {f"{__name__}.Changing": {}}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Changing.refused.clear()
    Changing.fails.clear()
    Changing.asked.clear()


def server(folder: Path) -> Server:
    return Server(folder, plain_topics=("#",), plugins=NAMES)


async def publish(client: Client, *topics: str, qos: int = 1, retain: bool = False) -> None:
    for number, topic in enumerate(topics, start=1):
        client.send(packets.publish(topic, topic.encode(), qos=qos, packet_id=number, retain=retain))
        await client.expect(packets.PUBACK if qos == 1 else packets.PUBREC, number)
        if qos == 2:
            client.send(packets.acknowledge(packets.PUBREL, number))
            await client.expect(packets.PUBCOMP, number)


async def left_for_bob(server: Server, *topics: str, qos: int = 1) -> None:
    """Bob has subscribed to `a/#` and `b/#`, has gone, and these wait for him."""
    bob = await server.connect("phone", "bob", clean=False)
    await bob.subscribe(("a/#", qos), ("b/#", qos))
    await bob.disconnect()
    alice = await server.connect("phone", "alice")
    await publish(alice, *topics, qos=qos)
    await alice.disconnect()


@on_loop
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_queued_is_handed_out_as_far_as_the_right_is_still_there(tmp_path: Path, restarted: bool) -> None:
    async with server(tmp_path) as first:
        await left_for_bob(first, "a/1", "a/2", "a/1", "b/1", "a/2")
        if not restarted:
            Changing.refused.add(("bob", "a/2", Action.RECEIVE))
            Changing.asked.clear()
            bob = await first.connect("phone", "bob", clean=False, present=True)
            assert [(await bob.message()).topic for _ in range(3)] == ["a/1", "a/1", "b/1"]
            asked = [topic for _, topic, action in Changing.asked if action is Action.RECEIVE]
            assert sorted(str(topic) for topic in asked) == ["a/1", "a/2", "b/1"], "each topic is asked of once"
            await bob.silent()
            return
        await first.stored()
    Changing.refused.add(("bob", "a/2", Action.RECEIVE))
    async with server(tmp_path) as second:
        bob = await second.connect("phone", "bob", clean=False, present=True)
        assert [(await bob.message()).topic for _ in range(3)] == ["a/1", "a/1", "b/1"]
        await bob.silent()
        await second.stored()
        Changing.refused.clear()
        again = await second.connect("phone", "bob", clean=False, present=True)
        assert [(await again.message()).topic for _ in range(3)] == ["a/1", "a/1", "b/1"], "what was refused is gone"
        await again.silent()


@on_loop
async def test_a_filter_that_would_not_be_granted_any_more_is_taken_from_a_session_that_goes_on(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        await left_for_bob(first, "a/1", "b/1")
        Changing.refused.add(("bob", "a/#", Action.SUBSCRIBE))
        bob = await first.connect("phone", "bob", clean=False, present=True)
        message = await bob.message()
        assert message.topic == "b/1"
        bob.send(packets.acknowledge(packets.PUBACK, message.packet_id))
        alice = await first.connect("phone", "alice")
        await publish(alice, "a/2", "b/2")
        message = await bob.message()
        assert message.topic == "b/2"
        await bob.silent()
        await bob.disconnect()
        Changing.refused.clear()
        await publish(alice, "a/3", "b/3")
        again = await first.connect("phone", "bob", clean=False, present=True)
        assert {(await again.message()).topic for _ in range(2)} == {"b/2", "b/3"}
        await again.silent()


@on_loop
async def test_live_messages_wait_behind_what_is_being_asked_of(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        await left_for_bob(first, *(f"a/{number}" for number in range(40)))
        alice = await first.connect("phone", "alice")
        bob = await first.open()
        bob.send(packets.connect("phone", username="bob", clean=False))
        await publish(alice, "a/live")
        await bob.expect(packets.CONNACK)
        assert [(await bob.message()).topic for _ in range(41)] == [*(f"a/{number}" for number in range(40)), "a/live"]


@on_loop
async def test_where_the_plugin_fails_the_connection_ends_and_nothing_is_gone(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        await left_for_bob(first, "a/1", "a/2")
        Changing.fails.add("a/2")
        bob = await first.open()
        bob.send(packets.connect("phone", username="bob", clean=False))
        assert [packet.kind for packet in await bob.gone()] == [packets.CONNACK]
        await first.counted("closes:internal_error")
        Changing.fails.clear()
        bob = await first.connect("phone", "bob", clean=False, present=True)
        assert [(await bob.message()).topic for _ in range(2)] == ["a/1", "a/2"]


@on_loop
async def test_what_is_retained_goes_to_those_alone_who_may_receive_it(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        alice = await first.connect("phone", "alice")
        await publish(alice, "a/1", "a/2", "a/3", retain=True)
        Changing.refused.add(("bob", "a/2", Action.RECEIVE))
        bob = await first.connect("phone", "bob")
        await bob.subscribe(("a/#", 1))
        assert sorted([(await bob.message()).topic for _ in range(2)]) == ["a/1", "a/3"]
        await bob.silent()
        await alice.subscribe(("a/#", 1))
        assert sorted([(await alice.message()).topic for _ in range(3)]) == ["a/1", "a/2", "a/3"]


@on_loop
@pytest.mark.parametrize("closed", ["by a plugin", "by the configuration"])
async def test_what_was_sent_at_qos_2_and_may_not_be_sent_again_is_still_released(tmp_path: Path, closed: str) -> None:
    """Its identifier would stay in use at the client for ever, and swallow a later message."""
    async with server(tmp_path) as first:
        bob = await first.connect("phone", "bob", clean=False)
        await bob.subscribe(("a/#", 2))
        alice = await first.connect("phone", "alice")
        await publish(alice, "a/1", "a/2", qos=2)
        identifiers = [(await bob.message()).packet_id for _ in range(2)]
        bob.send(packets.acknowledge(packets.PUBREC, identifiers[0]))
        await bob.expect(packets.PUBREL, identifiers[0])
        await bob.close()
        await first.stored()
    plain_topics = ("#",) if closed == "by a plugin" else ("b/#",)
    Changing.refused.update(("bob", f"a/{number}", Action.RECEIVE) for number in (1, 2))
    async with Server(tmp_path, plain_topics=plain_topics, plugins=NAMES) as second:
        bob = await second.connect("phone", "bob", clean=False, present=True)
        for identifier in identifiers:
            await bob.expect(packets.PUBREL, identifier)
            bob.send(packets.acknowledge(packets.PUBCOMP, identifier))
        await bob.silent()
        await second.stored()
        again = await second.connect("phone", "bob", clean=False, present=True)
        await again.silent()


@on_loop
async def test_members_of_a_share_who_may_not_receive_it_keep_nobody_else_from_it(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        Changing.refused.add(("mallory", "a/1", Action.RECEIVE))
        members = [await first.connect5(name, name) for name in ("mallory", "bob", "carol")]
        for member in members:
            await member.subscribe(("$share/g/a/#", 1))
        alice = await first.connect("phone", "alice")
        await publish(alice, *["a/1"] * 4)
        mallory, *others = members
        for member in others:
            for _ in range(2):
                assert (await member.receive()).topic == "a/1"
        await mallory.silent()


@on_loop
async def test_what_a_member_of_a_share_leaves_goes_to_one_who_may_receive_it(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        bob = await first.connect5("bob", "bob")
        await bob.subscribe(("$share/g/a/#", 1))
        alice = await first.connect("phone", "alice")
        await publish(alice, "a/1")
        assert (await bob.receive()).topic == "a/1"
        Changing.refused.add(("mallory", "a/1", Action.RECEIVE))
        mallory, carol = [await first.connect5(name, name) for name in ("mallory", "carol")]
        for member in (mallory, carol):
            await member.subscribe(("$share/g/a/#", 1))
        bob.send(packets5.disconnect())
        assert (await carol.receive()).topic == "a/1"
        await mallory.silent()


@on_loop
async def test_what_plugins_publish_goes_to_those_alone_who_may_receive_it(tmp_path: Path) -> None:
    plugins = {**NAMES, f"{__name__}.Teller": {}}
    async with Server(tmp_path, plain_topics=("#",), plugins=plugins) as first:
        Changing.refused.add(("bob", "a/told", Action.RECEIVE))
        alice, bob = await first.connect("phone", "alice"), await first.connect("phone", "bob")
        for client in (alice, bob):
            await client.subscribe(("a/#", 1))
        await first.connect("phone", "carol")
        assert (await alice.message()).topic == "a/told"
        await bob.silent()
