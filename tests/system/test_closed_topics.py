"""Plain topics that the configuration has closed: what was queued or retained there before is handed out no more."""

from __future__ import annotations

import pytest

from mqtt_im.testing import ServerProcess
from tests.support import packets5
from tests.support.im5 import Im5
from tests.system.conftest import Clients

CONFIG = {"mqtt.plain_topics": ["#"]}


@pytest.mark.parametrize("kill", [True, False])
def test_what_was_queued_for_a_topic_that_was_closed_since(own_server: ServerProcess, own_im: Clients, kill: bool) -> None:
    bob = own_im.sign_in("bob", clean=False)
    assert bob.subscribe(("secret/#", 1), ("news/#", 1)) == [1, 1]
    bob.disconnect()
    alice = own_im.sign_in("alice")
    for topic in ("secret/plan", "news/today", "secret/other"):
        packet_id = alice.publish(topic, b"x")
        alice.until(lambda wanted=packet_id: wanted in alice.pubacks, "PUBACK")  # type: ignore[misc]
    if kill:
        own_server.kill()
    else:
        own_server.stop()
    own_server.configure({"mqtt.plain_topics": ["#", "!secret/#"]})
    own_server.start()
    bob = own_im.sign_in("bob", clean=False)
    bob.until(lambda: bob.plain, "what is open")
    assert [packet.topic for packet in bob.plain] == ["news/today"]
    bob.disconnect()
    own_server.stop()
    own_server.configure({"mqtt.plain_topics": ["#"]})
    own_server.start()
    bob = own_im.sign_in("bob", clean=False)
    alice = own_im.sign_in("alice")
    alice.publish("news/later", b"x")
    bob.until(lambda: bob.plain, "the next one")
    assert [packet.topic for packet in bob.plain] == ["news/later"], "what was closed is gone"


@pytest.mark.parametrize("kill", [True, False])
def test_what_was_to_be_said_and_kept_on_a_topic_that_was_closed_since(
    own_server: ServerProcess, own_im: Clients, kill: bool
) -> None:
    """A delayed will, which runs over the restart, and a retained message; neither to those who watch everything."""
    for topic in ("secret/gone", "news/gone"):
        will = packets5.Will(topic, b"x", retain=True, properties={packets5.WILL_DELAY: 2})
        with Im5(
            own_server.mqtt_port, "carol", topic.replace("/", "-"), will=will, given={packets5.SESSION_EXPIRY: 600}
        ) as carol:
            carol.settle()
    alice = own_im.sign_in("alice")
    for topic in ("secret/kept", "news/kept"):
        packet_id = alice.publish(topic, b"x", retain=True)
        alice.until(lambda wanted=packet_id: wanted in alice.pubacks, "PUBACK")  # type: ignore[misc]
    own_server.kill() if kill else own_server.stop()
    own_server.configure({"mqtt.plain_topics": ["#", "!secret/#"]})
    own_server.start()
    bob = own_im.sign_in("bob")
    assert bob.subscribe(("#", 1)) == [1]
    bob.until(lambda: {packet.topic for packet in bob.plain} >= {"news/gone", "news/kept"}, "what is open")
    own_im.sign_in("alice").publish("news/last", b"x")
    bob.until(lambda: "news/last" in {packet.topic for packet in bob.plain}, "what comes last")
    assert {packet.topic for packet in bob.plain} == {"news/gone", "news/kept", "news/last"}
