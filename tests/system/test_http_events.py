"""`GET /api/v1/events`: the inbox, and a device's delivery, as server-sent events; tickets for it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from mqtt_im.testing import ServerProcess, Value, free_ports
from tests.support.faults import assert_no_fault
from tests.support.im import direct
from tests.support.raw import eventually
from tests.support.web import Events, Web
from tests.system.conftest import Clients, Login, Name

CONFIG = {"limits.requests_per_second": 2000, "limits.max_connections_per_user": 4}

Open = Callable[..., Events]


@pytest.fixture
def events(server: ServerProcess) -> Iterator[Open]:
    made: list[Events] = []

    def stream(web: Web, query: str = "", **headers: Any) -> Events:
        made.append(Events(server.http_port, web.token, query, 0, **headers))
        return made[-1]

    yield stream
    for opened in made:
        opened.close()


def test_a_watch_shows_what_comes(web: Login, events: Open, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    http, other = web(bob), web(alice)
    other.must("send", to=bob, body="before")
    stream = events(http)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    welcome = stream.next()
    assert welcome is not None and (welcome.op, welcome.id) == ("welcome", "")
    assert set(welcome.data) >= {"pos", "head", "floor", "epoch", "limits", "ts"}
    assert (welcome.data["pos"], welcome.data["head"]) == (1, 1)
    phone = im.online(alice)
    assert stream.wait("presence", user=alice).data["state"] == "online"
    for body in ("one", "two"):
        phone.request("send", to=bob, body=body)
    one = stream.wait("msg")
    assert (one.id, one.data["pos"], one.data["op"], one.data["body"]) == ("2", 2, "msg", "one")
    assert stream.wait("msg").data["body"] == "two"
    phone.request("read", conv=direct(alice, bob), seq=2)
    receipt = stream.wait("receipt", by=alice)
    assert (receipt.id, receipt.data["read"]) == ("", 2)
    phone.request("typing", to=bob, on=True)
    assert stream.wait("typing").data["from"] == alice
    http.must("send", to=alice, body="mine")
    assert stream.wait("msg").data["from"] == bob
    phone.disconnect()
    gone = stream.wait("presence", user=alice).data
    assert gone["state"] == "offline" and gone["last_seen"] > 0
    assert http.must("devices") == {"devices": []}


def test_where_a_watch_begins(web: Login, events: Open, name: Name) -> None:
    http, other = web(name("bob")), web(name("alice"))
    for body in range(5):
        other.must("send", to=name("bob"), body=body)
    assert events(http, "?after=3").wait("msg").id == "4"
    last = events(http, "?after=1", Last_Event_ID="4")
    assert last.wait("msg").id == "5"
    wrong: list[tuple[str, dict[str, str]]] = [
        ("?after=6", {}),
        ("?after=x", {}),
        ("?after=-1", {}),
        ("", {"Last_Event_ID": "9"}),
    ]
    for query, headers in wrong:
        refused = events(http, query, **headers)
        assert (refused.status, refused.problem["code"]) == (422, "bad_field"), query


def test_watching_makes_nobody_online(web: Login, events: Open, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    http = web(bob)
    phone = im.online(alice)
    phone.say(bob, "hello")
    assert phone.subscribe(f"im/v1/{bob}/presence") == [1]
    stream = events(http)
    stream.wait("welcome")
    assert stream.wait("presence", user=alice).data["state"] == "online"
    phone.say(bob, "more")
    stream.wait("msg", body="more")
    assert not [publish for publish in phone.plain if publish.topic.endswith("presence")]


def test_a_device_has_its_delivery(web: Login, events: Open, im: Clients, name: Name) -> None:
    bob = name("bob")
    http, other = web(bob), web(name("alice"))
    for body in range(3):
        other.must("send", to=bob, body=body)
    stream = events(http, "?device=tablet&after=2", Last_Event_ID="3")
    assert stream.wait("welcome").data["pos"] == 0
    assert [stream.wait("msg").id for _ in range(3)] == ["1", "2", "3"]
    device = http.must("devices")["devices"][0]
    assert (device["device"], device["pos"], device["online"]) == ("tablet", 0, True)
    assert http.must("ack", pos=2, device="tablet") == {}
    stream.close()
    stream = events(http, "?device=tablet")
    assert stream.wait("welcome").data["pos"] == 2
    assert stream.wait("msg").id == "3"
    again = events(http, "?device=tablet")
    assert again.wait("msg").id == "3"
    stream.until_closed()
    phone = im.online(bob, "tablet")
    again.until_closed()
    assert phone.wait("msg")["pos"] == 3
    third = events(http, "?device=tablet")
    phone.wait_closed()
    assert third.wait("msg").id == "3"
    assert events(http, "?device=a%20b").status == 422


def test_streams_count_as_connections(web: Login, events: Open, server: ServerProcess, name: Name) -> None:
    http = web(name("bob"))
    streams = [events(http) for _ in range(4)]
    assert {stream.status for stream in streams} == {200}
    refused = events(http)
    assert (refused.status, refused.problem["code"]) == (429, "rate_limited")
    streams.pop().close()
    eventually(lambda: events(http).status == 200, "a place")


def test_a_logout_ends_streams_and_connections(web: Login, events: Open, im: Clients, name: Name) -> None:
    http, other = web(name("bob")), web(name("bob"))
    stream, stays = events(http), events(other)
    phone = im.online(name("bob"), password=http.token)
    assert http.ask("POST", "/api/v1/logout").status == 204
    stream.until_closed()
    phone.wait_closed()
    other.must("send", to=name("bob"), body=1)
    assert stays.wait("msg").data["body"] == 1


def test_tickets(web: Login, server: ServerProcess, name: Name) -> None:
    http = web(name("bob"))
    answer = http.ask("POST", "/api/v1/ticket", {"for": "events"})
    assert answer.status == 201 and set(answer.data) == {"url", "expires"}
    url = answer.data["url"]
    assert url.startswith("/api/v1/events?ticket=")
    query = url.removeprefix("/api/v1/events")
    with Events(server.http_port, None, query) as stream:
        stream.wait("welcome")
        http.must("send", to=name("bob"), body=1)
        assert stream.wait("msg").data["body"] == 1
    for wrong in (query + "x", "?ticket=", "?ticket=abc"):
        with Events(server.http_port, None, wrong) as stream:
            assert (stream.status, stream.problem["code"]) == (401, "unauthorized")
    file = http.ask("POST", "/api/v1/ticket", {"for": "files/abc"}).data["url"]
    with Events(server.http_port, None, "?" + file.partition("?")[2]) as stream:
        assert stream.status == 401
    for goal in ("", "convs", "files/", "files/../x"):
        assert http.ask("POST", "/api/v1/ticket", {"for": goal}).code == "bad_field"
    assert http.ask("POST", "/api/v1/logout").status == 204
    with Events(server.http_port, None, query) as stream:
        assert stream.status == 401
    with Events(server.http_port) as stream:
        assert stream.status == 401
    assert http.ask("POST", "/api/v1/events").status == 405


def test_a_crash_loses_nothing_of_a_device(own_server: ServerProcess) -> None:
    port = own_server.http_port
    with (
        Web(port).login("alice") as alice,
        Web(port).login("bob") as bob,
        Events(port, bob.token, "?device=tablet") as stream,
    ):
        for body in range(3):
            alice.must("send", to="bob", body=body)
        stream.wait("msg", body=2)
        bob.must("ack", pos=1, device="tablet")
        token, other = bob.token, alice.token
        own_server.restart(kill=True)
    with Web(own_server.http_port, other) as alice:
        alice.must("send", to="bob", body=3)
        with Events(own_server.http_port, token, "?device=tablet") as stream:
            assert stream.wait("welcome").data["pos"] == 1
            assert [stream.wait("msg").id for _ in range(3)] == ["2", "3", "4"]


def test_a_stop_ends_streams_at_once(own_server: ServerProcess) -> None:
    with Web(own_server.http_port).login("bob") as bob, Events(own_server.http_port, bob.token) as stream:
        stream.wait("welcome")
        assert own_server.stop() == 0
        stream.until_closed()


def test_a_stream_goes_on_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    (port,) = free_ports(1)
    config: dict[str, Value] = {
        "http.tls.bind": f"127.0.0.1:{port}",
        "http.tls.cert": str(tmp_path / "cert.pem"),
        "http.tls.key": str(tmp_path / "key.pem"),
    }
    with (
        ServerProcess(config) as server,
        Web(port, tls=context).login("bob") as bob,
        Events(port, bob.token, tls=context) as stream,
    ):
        stream.wait("welcome")
        for number in range(200):
            bob.must("send", to="bob", body=[number, "x" * 5000])
            if number % 50 == 49:  # now and then the client reads nothing for a while
                assert [stream.wait("msg").data["body"][0] for _ in range(50)] == list(range(number - 49, number + 1))
        # One that hangs up with much unread leaves no trace.
        with Events(port, bob.token, "?after=0", 4096, tls=context) as other:
            other.wait("welcome")
        eventually(lambda: 'closes_total{reason="lost"} 1.0' in server.get("/metrics")[1], "the end of the stream")
        assert_no_fault(server.log())
