"""PROTOCOL.md §2: who a connection is, and which device."""

from __future__ import annotations

import pytest

from tests.support import packets
from tests.support.im import PREFIX, ImClient
from tests.support.raw import PATIENCE_S, RawClient, Refused
from tests.system.conftest import Clients, Name


def devices(client: ImClient) -> list[str]:
    return sorted(entry["device"] for entry in client.must("devices")["devices"])


@pytest.mark.parametrize("user", ["a", "A9_.-", "x" * 64, "0", "...", "-"])
def test_valid_user_and_device_ids(im: Clients, user: str) -> None:
    """User id: 1–64 of A-Z a-z 0-9 _ . -, and device ids the same."""
    client = im.online(user, user)
    assert user in devices(client)


@pytest.mark.parametrize("username", ["", "x" * 65, "a b", "a/b", "a:b", "#a", "é", "a+b", "$SYS"])
def test_a_username_that_is_no_user_id_gets_connack_4(im: Clients, username: str) -> None:
    with pytest.raises(Refused) as refusal:
        im.sign_in("nobody", client_id="phone", username=username)
    assert refusal.value.code == 4


def test_connection_is_closed_after_a_refusal(im: Clients) -> None:
    client = im.socket("nobody")
    client.send(packets.connect("phone", username="a/b"))
    assert client.expect(packets.CONNACK).body[1] == 4
    assert client.until_closed() == []


def test_client_id_names_the_device_with_or_without_its_user(im: Clients, name: Name) -> None:
    """`{device}`, or `{user}:{device}`, of which the leading `{user}:` is taken off."""
    alice = name("alice")
    im.sign_in(alice, client_id=f"{alice}:tablet").subscribe(f"{PREFIX}/{alice}/tablet/down")
    watch = im.online(alice, "watch")
    assert devices(watch) == ["tablet", "watch"]


def test_two_users_with_the_same_device_never_meet(im: Clients, name: Name) -> None:
    one, other = im.online(name("alice"), "phone"), im.online(name("bob"), "phone")
    one.flush()
    other.flush()


def test_another_users_name_before_the_colon_is_no_device(im: Clients, name: Name) -> None:
    """Nobody can take over another user's session: a client id with a foreign `{user}:` names no device."""
    alice, mallory = name("alice"), name("mallory")
    victim = im.online(alice, "phone", clean=False)
    intruder = im.sign_in(mallory, client_id=f"{alice}:phone")
    assert intruder.subscribe(f"{PREFIX}/{alice}/down", f"{PREFIX}/{mallory}/down") == [0x80, 0x80]
    victim.flush()


def test_second_connection_takes_over_and_the_first_is_closed(im: Clients, name: Name) -> None:
    alice = name("alice")
    first = im.online(alice)
    second = im.online(alice)
    first.wait_closed()
    second.flush()


@pytest.mark.parametrize("old_clean", [True, False])
@pytest.mark.parametrize("new_clean", [True, False])
def test_take_over_with_every_kind_of_session(im: Clients, name: Name, old_clean: bool, new_clean: bool) -> None:
    """The old connection is closed; the new one works, receives, and is not ended by the old one's clean-up."""
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    for turn in range(5):
        old = im.online(alice, clean=old_clean)
        new = im.sign_in(alice, clean=new_clean)
        assert new.session_present is (not old_clean and not new_clean)
        if not new.session_present:
            new.listen()
        old.wait_closed()
        peer.say(alice, turn)
        assert new.wait("msg", body=turn)["from"] == bob
        new.disconnect()


def test_take_over_by_the_other_form_of_the_client_id(im: Clients, name: Name) -> None:
    alice = name("alice")
    first = im.online(alice, "phone", client_id="phone")
    im.online(alice, "phone", client_id=f"{alice}:phone").flush()
    first.wait_closed()


@pytest.mark.parametrize("client_id", ["{}:phone", "{}"])
def test_open_mode_takes_the_user_from_the_client_id(im: Clients, name: Name, client_id: str) -> None:
    """Without a username: `alice:phone`, or `alice` alone, which is user and device `alice`."""
    alice = name("alice")
    device = "phone" if ":" in client_id else alice
    client = im.socket(alice, device)
    assert client.connect(client_id.format(alice), username=None) is False
    client.listen()
    assert devices(client) == [device]


@pytest.mark.parametrize("client_id", ["", "two words", "a/b", "a:b:c", "x" * 65])
def test_open_mode_without_a_name_is_nobody(im: Clients, name: Name, client_id: str) -> None:
    """A plain MQTT client: nothing under the prefix."""
    client = im.socket(name("alice"))
    client.connect(client_id, username=None)
    assert client.subscribe(f"{PREFIX}/a/down", f"{PREFIX}/#") == [0x80, 0x80]


@pytest.mark.parametrize("client_id", ["", "two words", "a/b"])
def test_a_client_id_that_names_no_device_has_nothing_under_the_prefix(im: Clients, name: Name, client_id: str) -> None:
    alice = name("alice")
    client = im.sign_in(alice, client_id=client_id)
    assert client.subscribe(f"{PREFIX}/{alice}/down", f"{PREFIX}/{alice}/phone/down") == [0x80, 0x80]
    client.publish(f"{PREFIX}/{alice}/phone/up", b'{"op":"send","to":"x","body":1}')
    client.acknowledged(1)
    assert devices(im.online(alice, "watch")) == ["watch"]


def test_an_empty_client_id_needs_a_clean_session(im: Clients, name: Name) -> None:
    """MQTT-3.1.3-8: CONNACK 2, and the connection is closed."""
    with pytest.raises(Refused) as refusal:
        im.sign_in(name("alice"), client_id="", clean=False)
    assert refusal.value.code == 2


def test_a_device_is_registered_by_its_first_subscription(im: Clients, name: Name) -> None:
    alice = name("alice")
    watch = im.online(alice, "watch")
    im.sign_in(alice, "publisher").confirmed("send", to=alice, body="x", id="1")
    assert devices(watch) == ["watch"]
    im.sign_in(alice, "one").subscribe(f"{PREFIX}/{alice}/down")
    im.sign_in(alice, "two").subscribe(f"{PREFIX}/{alice}/two/down")
    assert devices(watch) == ["one", "two", "watch"]


def test_a_device_is_registered_by_its_first_hello(im: Clients, name: Name) -> None:
    alice = name("alice")
    watch = im.online(alice, "watch")
    im.sign_in(alice, "silent").confirmed("hello", id="h")
    assert devices(watch) == ["silent", "watch"]


def test_versions_that_are_not_spoken_are_refused_as_theirs_say(server_port: int) -> None:
    """CONNACK 0x01 for 3.1, reason code 0x84 for what is newer than 5; then the connection is closed. 5 is let in."""
    with RawClient(server_port) as old:
        old.send(packets.connect("phone", username="a", protocol="MQIsdp", level=3))
        assert old.expect(packets.CONNACK).body == b"\x00\x01"
        assert old.until_closed(PATIENCE_S) == []
    for level, code in ((6, b"\x00\x84"), (5, b"\x00\x00")):
        with RawClient(server_port) as new:
            head = packets.text("MQTT") + bytes([level, 2]) + b"\x00\x00" + b"\x00"
            new.send(packets.packet(packets.CONNECT, head + packets.text("phone")))
            assert new.expect(packets.CONNACK).body[:2] == code
            if level > 5:
                assert new.until_closed(PATIENCE_S) == []


@pytest.fixture
def server_port(im: Clients) -> int:
    return im.server.mqtt_port
