"""Logins of other systems: signed tokens, and a service that is asked."""

from __future__ import annotations

import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from mqtt_im.testing import ServerProcess, Value
from tests.support.faults import assert_no_fault
from tests.support.im import ImClient
from tests.support.raw import Refused, eventually
from tests.support.web import Events, Web

SECRET = "a secret of more than thirty-two bytes, as it should be"


def token(user: str = "alice", seconds: float = 600, secret: str = SECRET) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + seconds}, secret, "HS256")


@pytest.fixture
def jwt_server(tmp_path: Path) -> Iterator[ServerProcess]:
    key = tmp_path / "key"
    key.write_text(SECRET + "\n")
    config: dict[str, Value] = {"auth.mode": "jwt", "auth.jwt.key": str(key), "auth.jwt.algorithms": ["HS256"]}
    with ServerProcess(config) as server:
        yield server
        assert server.stop() == 0
        assert_no_fault(server.log())


def connected(server: ServerProcess, user: str | None, password: str, device: str = "phone") -> ImClient:
    client = ImClient(server.mqtt_port, user or "", device)
    try:
        client.connect(device, username=user, password=password)
    except BaseException:
        client.close()
        raise
    return client


def refused(server: ServerProcess, user: str | None, password: str) -> int:
    with pytest.raises(Refused) as caught:
        connected(server, user, password)
    return caught.value.code


def test_signed_tokens(jwt_server: ServerProcess, tmp_path: Path) -> None:
    server = jwt_server
    with connected(server, "alice", token()) as phone, Web(server.http_port, token()) as web:
        phone.listen()
        web.must("send", to="alice", body="hello")
        assert phone.wait("msg")["body"] == "hello"
        assert refused(server, "bob", token()) == 4
        assert refused(server, "alice", "wrong") == 4
        assert refused(server, "alice", token(seconds=-10)) == 4
        web.refused("login", 403, "forbidden", user="alice", password="x")
        web.token = token(secret="another secret of more than thirty-two bytes")
        web.refused("devices", 401, "unauthorized")
        short = token(seconds=10)
        with connected(server, "alice", short, "tablet") as tablet, Events(server.http_port, short) as stream:
            stream.wait("welcome")
            tablet.wait_closed()
            stream.until_closed()
        phone.listen()
        web.close()  # the server has closed it by now, as one that nothing came on; the next request has a new one
        # The key is changed, and a broken one changes nothing.
        other = "another secret of more than thirty-two bytes"
        (tmp_path / "key").write_text(other)
        server.signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in server.log(), "the reload")
        web.token = token(secret=other)
        web.must("devices")
        (tmp_path / "key").write_text("")
        server.signal(signal.SIGHUP)
        eventually(lambda: "auth.jwt.key" in server.log(), "the refused key")
        web.must("devices")
        web.token = token()
        web.refused("devices", 401, "unauthorized")


class Service(http.server.BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    server: Any

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((asked, self.headers.get("X-Key")))
        status, body = self.server.answer
        if status == 0:
            self.server.gate.wait(60)
            status = 204
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Any]:
    made: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    made.daemon_threads = True
    made.asked, made.answer, made.gate = [], (204, b""), threading.Event()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.gate.set()
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_service_that_is_asked(service: Any, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{service.server_address[1]}/login"
    config: dict[str, Value] = {"auth.mode": "http", "auth.http.url": url, "auth.http.timeout_s": 5}
    with ServerProcess(config) as server, Web(server.http_port) as web:
        with connected(server, "alice", "secret") as phone:
            phone.listen()
            asked, _ = service.asked[-1]
            assert asked == {
                "username": "alice",
                "password": "secret",
                "clientid": "phone",
                "peerhost": "127.0.0.1",
                "protocol": "mqtt",
            }
            web.login("alice", "secret")
            assert service.asked[-1][0]["protocol"] == "http"
            web.must("send", to="alice", body=1)
            phone.wait("msg")
        before = len(service.asked)
        connected(server, "alice", str(web.token)).close()
        assert len(service.asked) == before
        for answer, code, status in [
            ((200, b'{"result": "allow"}'), 0, 200),
            ((200, b'{"result": "deny"}'), 4, 401),
            ((200, b'{"result": "ignore"}'), 4, 401),
            ((403, b""), 4, 401),
            ((500, b""), 3, 503),
            ((200, b"yes"), 3, 503),
            ((200, b'{"result": "perhaps"}'), 3, 503),
            ((302, b""), 3, 503),
            ((0, b""), 3, 503),
        ]:
            service.answer = answer
            if code:
                assert refused(server, "bob", "x") == code, answer
            else:
                connected(server, "bob", "x").close()
            web.token = None
            assert web.post("login", user="bob", password="x").status == status, answer
        assert_no_fault(server.log())
