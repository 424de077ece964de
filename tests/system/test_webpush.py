"""Web Push, against a push service of our own that verifies and decrypts."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import ImClient
from tests.support.push_service import BrowserKeys, PushService, verify_vapid
from tests.support.raw import eventually
from tests.support.web import Web

PATIENCE_S = 60
CONTACT = "mailto:ops@example.org"


@pytest.fixture(scope="module")
def service() -> Iterator[PushService]:
    with PushService() as started:
        yield started


@pytest.fixture(scope="module")
def server(service: PushService) -> Iterator[ServerProcess]:
    settings = {"webpush.contact": CONTACT, "webpush.services": [service.origin], "webpush.delay_s": 0, "webpush.coalesce_s": 0}
    with ServerProcess({**settings}) as started:  # type: ignore[dict-item]
        yield started


def away(server: ServerProcess, user: str, device: str = "web") -> None:
    """The device is registered, and gone again."""
    ImClient(server.mqtt_port, user, device).sign_in().listen().disconnect()


def subscribe(web: Web, service: PushService, path: str, device: str = "web") -> BrowserKeys:
    keys = BrowserKeys()
    web.must(
        "push.subscribe",
        device=device,
        subscription={"endpoint": service.origin + path, "keys": keys.told, "expirationTime": None},
    )
    return keys


def told(service: PushService, path: str, keys: BrowserKeys) -> Any:
    """What the next request to this path says."""
    while True:
        at, headers, body = service.requests.get(timeout=PATIENCE_S)
        if at == path:
            return headers, json.loads(keys.decrypt(body))


def test_a_browser_is_told_what_only_it_can_read(server: ServerProcess, service: PushService) -> None:
    with Web(server.http_port) as bob, Web(server.http_port) as alice:
        away(server, "bob")
        keys = subscribe(bob.login("bob"), service, "/bob")
        alice.login("alice").must("send", to="bob", body="Hello from far away", id="m1")
        headers, content = told(service, "/bob", keys)
        public = bob.ask("GET", "/web/server.json").data["push_key"]
    claims = verify_vapid(headers["authorization"], service.origin, public, time.time())
    assert claims["sub"] == CONTACT
    assert (headers["content-encoding"], headers["urgency"]) == ("aes128gcm", "high")
    assert int(headers["ttl"]) > 0 and len(headers["topic"]) == 32
    assert (content["user"], content["count"]) == ("bob", 1)
    (conversation,) = content["conversations"]
    assert (conversation["conv"], conversation["from"], conversation["body"]) == ("alice:bob", "alice", "Hello from far away")


def test_who_is_connected_is_not_told(server: ServerProcess, service: PushService) -> None:
    with Web(server.http_port) as web, Web(server.http_port) as alice:
        alice.login("alice")
        with contextlib.closing(ImClient(server.mqtt_port, "carol", "web").sign_in().listen()) as here:
            keys = subscribe(web.login("carol"), service, "/carol")
            alice.must("send", to="carol", body="you are here", id="c1")
            away(server, "dora")
            other = subscribe(web.login("dora"), service, "/dora")
            alice.must("send", to="dora", body="you are not", id="c2")
            told(service, "/dora", other)
            assert here.wait("msg", id="c1")
        with pytest.raises(Empty):
            service.requests.get_nowait()
        assert keys


def test_a_subscription_that_is_gone_is_removed(server: ServerProcess, service: PushService) -> None:
    with Web(server.http_port) as web, Web(server.http_port) as alice:
        away(server, "erin", "one")
        away(server, "erin", "two")
        web.login("erin")
        subscribe(web, service, "/erin-one", "one")
        keys = subscribe(web, service, "/erin-two", "two")
        service.answers["/erin-one"] = [410]
        alice.login("alice")
        for number in range(2):
            alice.must("send", to="erin", body=f"message {number}", id=f"e{number}")
            _, content = told(service, "/erin-two", keys)
            assert content["conversations"][0]["body"] == f"message {number}"
            eventually(lambda: "a subscription is gone user=erin device=one" in server.log(), "the end of the subscription")
    assert service.answers["/erin-one"] == []
    with pytest.raises(Empty):
        service.requests.get_nowait()


def test_what_a_push_service_refuses_is_tried_again_also_after_a_kill(server: ServerProcess, service: PushService) -> None:
    with Web(server.http_port) as web, Web(server.http_port) as alice:
        away(server, "fay")
        keys = subscribe(web.login("fay"), service, "/fay")
        service.answers["/fay"] = [503]
        alice.login("alice").must("send", to="fay", body="once more", id="f1")
        told(service, "/fay", keys)
        server.kill()
        server.start()
        assert told(service, "/fay", keys)[1]["conversations"][0]["body"] == "once more"


def test_who_has_unsubscribed_or_forgotten_the_device_is_left_alone(server: ServerProcess, service: PushService) -> None:
    with Web(server.http_port) as gwen, Web(server.http_port) as hal, Web(server.http_port) as alice:
        away(server, "gwen")
        away(server, "hal")
        away(server, "hal", "phone")
        subscribe(gwen.login("gwen"), service, "/gwen")
        gwen.must("push.unsubscribe", device="web")
        subscribe(hal.login("hal"), service, "/hal")
        phone = subscribe(hal, service, "/hal-phone", "phone")
        hal.must("device.forget", device="web", id="forget")
        alice.login("alice")
        alice.must("send", to="gwen", body="hello", id="g1")
        alice.must("send", to="hal", body="hello", id="h1")
        told(service, "/hal-phone", phone)
    with pytest.raises(Empty):
        service.requests.get_nowait()


def test_only_listed_push_services_are_called(server: ServerProcess, service: PushService) -> None:
    keys = BrowserKeys().told
    with Web(server.http_port) as web:
        web.refused("push.subscribe", 401, "unauthorized", device="web", subscription={"endpoint": service.origin, "keys": keys})
        web.login("ivan")
        for endpoint in (
            "http://127.0.0.1:1/x",
            "https://fcm.googleapis.com/x",
            f"{service.origin}1/x",
            service.origin.replace("://", "://user@") + "/x",
            "file:///etc/passwd",
            "",
        ):
            web.refused("push.subscribe", 422, "bad_field", device="web", subscription={"endpoint": endpoint, "keys": keys})
        for wrong in ({"p256dh": "AAAA", "auth": keys["auth"]}, {"p256dh": keys["p256dh"], "auth": "AAAA"}):
            web.refused(
                "push.subscribe", 422, "bad_field", device="web", subscription={"endpoint": service.origin + "/x", "keys": wrong}
            )
        web.refused(
            "push.subscribe", 422, "bad_field", device="a b", subscription={"endpoint": service.origin + "/x", "keys": keys}
        )


def test_off_without_a_contact(tmp_path: Path) -> None:
    with ServerProcess(folder=tmp_path) as server, Web(server.http_port) as web:
        assert web.ask("GET", "/web/server.json").data["push_key"] == ""
        keys = BrowserKeys().told
        subscription = {"endpoint": "https://fcm.googleapis.com/x", "keys": keys}
        web.login("alice").refused("push.subscribe", 404, "not_found", device="web", subscription=subscription)
        assert not list(server.data_dir.glob("webpush*"))


def test_what_was_put_aside_is_listed_and_sent_again(service: PushService) -> None:
    settings = {"webpush.contact": CONTACT, "webpush.services": [service.origin], "webpush.delay_s": 0, "webpush.max_attempts": 1}
    with ServerProcess({**settings}) as server, Web(server.http_port) as web, Web(server.http_port) as alice:  # type: ignore[dict-item]
        away(server, "zoe")
        keys = subscribe(web.login("zoe"), service, "/zoe")
        service.answers["/zoe"] = [400]
        alice.login("alice").must("send", to="zoe", body="put aside", id="z1")
        told(service, "/zoe", keys)
        deadline = time.monotonic() + PATIENCE_S
        while not (listed := server.command("hooks", "list").stdout) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert listed == "webpush\tzoe\t1\t127.0.0.1: status 400\n"
        assert "1 webhook will be sent again" in server.command("hooks", "retry").stdout
        assert told(service, "/zoe", keys)[1]["conversations"][0]["body"] == "put aside"
        assert server.command("hooks", "list").stdout == ""
