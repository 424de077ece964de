"""PROTOCOL.md §2: the prefix is configurable."""

from __future__ import annotations

from tests.support.im import encode
from tests.system.conftest import Clients, Name

CONFIG = {"mqtt.prefix": "corp/chat"}


def test_everything_lives_below_the_configured_prefix(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    peer = im.socket(bob)
    peer.user_down, peer.device_down = f"corp/chat/{bob}/down", f"corp/chat/{bob}/phone/down"
    peer.sign_in().listen()
    im.sign_in(alice).publish(f"corp/chat/{alice}/phone/up", encode({"op": "send", "to": bob, "body": "hi", "id": "1"}))
    assert peer.wait("msg").packet.topic == f"corp/chat/{bob}/down"


def test_the_usual_prefix_is_then_a_closed_topic(im: Clients, name: Name) -> None:
    alice = name("alice")
    assert im.sign_in(alice).subscribe(f"im/v1/{alice}/down") == [0x80]
