"""`POST /api/v1/{op}`: the requests of the protocol over HTTP."""

from __future__ import annotations

from mqtt_im.testing import ServerProcess
from tests.support.im import direct
from tests.support.web import Web
from tests.system.conftest import Clients, Login, Name

CONFIG = {"auth.admin_token": "the-admin-token", "limits.requests_per_second": 2000}


def test_a_message_is_sent_once_and_reaches_every_device(web: Login, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, own = im.online(bob), im.online(alice)
    http = web(alice)
    sent = http.must("send", to=bob, body="hello", id="m1")
    assert set(sent) == {"id", "conv", "seq", "ts"}
    assert (sent["id"], sent["conv"], sent["seq"]) == ("m1", direct(alice, bob), 1)
    assert phone.wait("msg", body="hello")["from"] == alice
    assert own.wait("msg", body="hello")["id"] == "m1"
    assert http.must("send", to=bob, body="hello", id="m1") == {**sent, "dup": True}
    http.refused("send", 409, "conflict", to=bob, body="other", id="m1")


def test_an_id_comes_from_the_map_the_header_or_the_server(web: Login, name: Name) -> None:
    bob = name("bob")
    http = web(name("alice"))
    first = http.must("send", to=bob, body=1)
    assert 1 <= len(first["id"]) <= 64
    again = http.post("send", {"Idempotency_Key": first["id"]}, to=bob, body=1)
    assert again.data == {**first, "dup": True}
    assert http.post("send", {"Idempotency_Key": "k"}, to=bob, body=1, id="k").data["id"] == "k"
    both = http.post("send", {"Idempotency_Key": "k"}, to=bob, body=1, id="l")
    assert (both.status, both.code) == (422, "bad_field")
    empty = http.post("send", {"Idempotency_Key": ""}, to=bob, body=1)
    assert (empty.status, empty.code) == (422, "bad_field")
    assert http.refused("send", 422, "bad_field", to=bob, body=1, id="")
    # The header is UTF-8, as the map is.
    told = {"to": bob, "body": 1, "id": "größe"}
    assert http.ask("POST", "/api/v1/send", told, Idempotency_Key="größe".encode().decode("latin-1")).data["id"] == "größe"
    foreign = http.post("send", {"Idempotency_Key": "größe"}, to=bob, body=1)  # which `http.client` sends as Latin-1
    assert (foreign.status, foreign.code) == (422, "bad_field")
    assert "Idempotency-Key" in foreign.data["detail"]
    group = http.must("group.create", members=[bob])
    assert set(group) >= {"id", "group", "seq"}
    assert set(http.must("react", conv=group["group"], seq=1, emoji="👍")) == {"id"}


def test_every_op_has_its_answer(web: Login, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    http = web(alice)
    conv = http.must("send", to=bob, body="one two")["conv"]
    assert http.must("read", conv=conv, seq=1) == {}
    assert phone.wait("receipt", by=alice)["read"] == 1
    assert http.must("typing", to=bob, on=True) == {}
    assert phone.wait("typing")["from"] == alice
    page = http.must("history", conv=conv)
    assert ([item["body"] for item in page["items"]], page["more"], page["conv"]) == (["one two"], False, conv)
    assert "op" not in page
    assert http.must("sync", after=0)["items"][0]["op"] == "msg"
    assert http.must("convs")["convs"][0]["conv"] == conv
    assert http.must("edit", conv=conv, seq=1, body="three")["id"]
    assert http.must("settings", presence=False) | {"id": ""} == {"id": "", "presence": False, "read_receipts": True}
    assert http.must("devices") == {"devices": []}
    welcome = http.must("hello", codec="xml", window=0, after="what devices may say means nothing here")
    assert set(welcome) == {"epoch", "head", "floor", "limits", "ts"}
    assert (welcome["head"], welcome["floor"]) == (2, 0)
    assert set(welcome["limits"]) == {"packet", "body", "window", "rate", "page"}


def test_ack_moves_a_devices_cursor(web: Login, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    phone.must("hello", ack="app")
    http, other = web(bob), web(alice)
    http.refused("ack", 404, "not_found", pos=0, device="nobody")
    for body in range(3):
        other.must("send", to=bob, body=body)
    phone.received(3)
    http.refused("ack", 422, "bad_field", pos=4, device="phone")
    http.refused("ack", 422, "bad_field", pos=2)
    assert http.must("ack", pos=2, device="phone") == {}
    assert http.must("devices")["devices"][0]["pos"] == 2


def test_what_is_wrong_is_told_in_order(server: ServerProcess, web: Login, name: Name) -> None:
    with Web(server.http_port) as nobody:
        for path, method, status, code in [
            ("/api/v1/nonsense", "POST", 404, "unknown_op"),
            ("/api/v1/nonsense", "GET", 404, "unknown_op"),
            ("/api/v1/a/b", "POST", 404, "not_found"),
            ("/api/v1/send/", "POST", 404, "not_found"),
            ("/api/v1/send", "GET", 405, "method_not_allowed"),
            ("/api/v1/login", "GET", 405, "method_not_allowed"),
            ("/api/v1/send", "POST", 401, "unauthorized"),
        ]:
            answer = nobody.ask(method, path, body=b"x")
            assert (answer.status, answer.code) == (status, code), path
            if status == 405:
                assert answer.headers["allow"] == "POST"
            if status == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
        nobody.token = "mqim_wrong"
        answer = nobody.ask("POST", "/api/v1/send", body=b"x", X_Act_As="bob")
        assert (answer.status, answer.code) == (401, "unauthorized")
    http = web(name("alice"))
    send = "/api/v1/send"
    acting = http.ask("POST", send, body=b"x", X_Act_As="bob")
    assert (acting.status, acting.code) == (403, "forbidden")
    assert (kind := http.ask("POST", send, body=b"x")).status == 415 and kind.code == "unsupported_type"
    assert http.ask("POST", send, body=b"x", Content_Type="text/plain").code == "unsupported_type"
    big = http.ask("POST", send, body=b"x" * 300_000, Content_Type="application/json")
    assert (big.status, big.code) == (413, "too_large")
    for body in (b"", b"x", b"[]", b"1", b'{"to": "b"', b"\xff{}"):
        answer = http.ask("POST", send, body=body, Content_Type="application/json; charset=utf-8")
        assert (answer.status, answer.code) == (400, "bad_payload"), body
    http.refused("send", 422, "bad_field", to="bob")
    http.refused("send", 422, "bad_field", body="x")
    http.refused("send", 413, "too_large", to="bob", body="x" * 70_000)
    http.refused("history", 403, "not_member", conv="#none")
    http.refused("edit", 403, "not_member", conv=direct(name("alice"), name("bob")), seq=1, body=1)
    http.must("send", to=name("bob"), body=1)
    http.refused("edit", 404, "not_found", conv=direct(name("alice"), name("bob")), seq=7, body=1)
    http.refused("read", 422, "bad_field", conv=direct(name("alice"), name("bob")), seq=7)


def test_the_admin_token_acts_as_users(server: ServerProcess, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    with Web(server.http_port, "the-admin-token") as admin:
        admin.refused("send", 422, "bad_field", to=bob, body=1)
        assert admin.ask("POST", "/api/v1/send", {"to": bob, "body": 1}, X_Act_As="a/b").code == "not_found"
        assert admin.ask("POST", "/api/v1/send", {"to": bob, "body": 1}, X_Act_As=alice).status == 200
    assert phone.wait("msg")["from"] == alice


def test_logout_ends_a_token(server: ServerProcess, web: Login, name: Name) -> None:
    http, other = web(name("alice")), web(name("alice"))
    assert http.ask("POST", "/api/v1/logout").status == 204
    http.refused("devices", 401, "unauthorized")
    other.must("devices")


def test_pages_and_headers(server: ServerProcess) -> None:
    with Web(server.http_port) as web:
        page = web.ask("GET", "/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "server" not in page.headers
        again = web.ask("GET", "/", If_None_Match=page.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert web.ask("GET", "/../pyproject.toml").status == 404
        assert web.ask("HEAD", "/").body == b""
