"""config/nginx.conf and config/Caddyfile, with the real proxies in front of a server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_im.testing import ServerProcess, free_ports
from tests.support.raw import eventually
from tests.support.web import HOST, Events, Web

ROOT = Path(__file__).parents[2]
PLACES = 24
CONFIG = {
    "http.trusted_proxies": ["127.0.0.1"],
    "auth.admin_token": "admin",
    "http.max_connections": PLACES,
    "limits.max_connections_per_user": 2 * PLACES,
}

MAIN = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/mqtt-im.conf;
}}
"""


def _nginx(port: int, http_port: int, folder: Path) -> list[str]:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    assert nginx is not None, "tools/need-nginx installs it"
    text = (ROOT / "config" / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("listen 80;", f"listen {HOST}:{port};").replace("127.0.0.1:8080", f"{HOST}:{http_port}")
    (folder / "mqtt-im.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    return [nginx, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def _caddy(port: int, http_port: int, folder: Path) -> list[str]:
    caddy = shutil.which("caddy")
    assert caddy is not None, "tools/need-caddy installs it"
    text = (ROOT / "config" / "Caddyfile").read_text(encoding="utf-8")
    # Without a name of its own it gets no certificate.
    text = text.replace("chat.example {", f"http://:{port} {{\n\tbind {HOST}").replace("127.0.0.1:8080", f"{HOST}:{http_port}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    return [caddy, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture(params=[_nginx, _caddy], ids=["nginx", "caddy"])
def front(request: pytest.FixtureRequest, server: ServerProcess, tmp_path: Path) -> Iterator[int]:
    """The proxy's port."""
    (port,) = free_ports(1)
    tmp_path.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    log = tmp_path / "error.log"
    with log.open("wb") as output:
        command = request.param(port, server.http_port, tmp_path)
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with Web(port) as web:
                return web.ask("GET", "/health/ready").status == 200
        except OSError:
            return False

    try:
        eventually(ready, "the proxy")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:  # Caddy waits for whoever is connected
            process.kill()
            process.wait(60)


def test_one_port_is_a_whole_service(server: ServerProcess, front: int) -> None:
    with Web(front).login("alice") as web, Events(front, web.token) as stream:
        stream.wait("welcome")  # at once: it is not buffered
        assert web.ask("GET", "/").headers["content-security-policy"]
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="phone", transport="websockets")
        client.ws_set_options(path="/mqtt")
        client.username_pw_set("alice", "x")
        client.connect(HOST, front)
        client.loop_start()
        try:
            eventually(client.is_connected, "MQTT over WebSocket through the proxy")
            client.publish("im/v1/alice/phone/up", '{"op": "send", "to": "alice", "body": "hello"}', qos=1).wait_for_publish(20)
            assert stream.wait("msg").data["body"] == "hello"
            with Web(server.http_port, "admin", X_Act_As="alice") as admin:
                found = admin.ask("GET", "/api/v1/admin/connections").data["connections"]
            assert {entry["protocol"].rpartition("/")[2] for entry in found} == {"ws", "sse"}
        finally:
            client.disconnect()
            client.loop_stop()


def test_the_clients_address_is_known(request: pytest.FixtureRequest, server: ServerProcess, front: int) -> None:
    """nginx adds its client's address, which is trusted here; Caddy believes nobody what stands there already."""
    known = HOST if "caddy" in request.node.name else "192.0.2.7"
    with Web(front, X_Forwarded_For="192.0.2.7") as web, Web(server.http_port, "admin") as admin:
        web.login("bob")
        with Events(front, web.token, X_Forwarded_For="192.0.2.7") as stream:
            stream.wait("welcome")
            found = admin.ask("GET", "/api/v1/admin/connections").data["connections"]
            assert [entry["address"] for entry in found if entry["user"] == "bob"] == [known]


def test_health_is_answered_though_all_places_are_taken(server: ServerProcess, front: int) -> None:
    """Who balances the load must not take a server for dead that only has much to do; what is asked then is told to come back."""
    with Web(server.http_port).login("dave") as web:
        token = web.token
    streams: list[Events] = []
    try:
        for _ in range(PLACES):
            streams.append(Events(server.http_port, token))
            streams[-1].wait("welcome")
        for _ in range(20):
            for path in ("live", "ready"):
                for method in ("GET", "HEAD"):
                    with Web(front) as check:
                        assert check.ask(method, f"/health/{path}").status == 200
            with Web(front, token) as web:
                refused = web.ask("GET", "/api/v1/files/none")
                assert (refused.status, refused.code) == (503, "unavailable")
                assert refused.headers["retry-after"] == "5"
    finally:
        for stream in streams:
            stream.close()

    def served() -> bool:
        with Web(front, token) as web:
            return web.post("devices").status == 200

    eventually(served, "places")
    for _ in range(20):
        assert served(), "on the connections that were asked for health before"


def test_files_pass(request: pytest.FixtureRequest, front: int) -> None:
    with Web(front).login("carol") as web:
        body = bytes(range(256)) * 20_000
        made = web.ask("POST", "/api/v1/files?name=big.bin", body=body, Content_Type="application/octet-stream")
        assert (made.status, made.data["size"]) == (201, len(body))
        web.must("send", to="carol", body="see", files=[made.data["id"]])
        got = web.ask("GET", f"/api/v1/files/{made.data['id']}")
        assert (got.status, got.body == body) == (200, True)
        part = web.ask("GET", f"/api/v1/files/{made.data['id']}", Range="bytes=1-3")
        assert (part.status, part.body) == (206, b"\x01\x02\x03")
        if "caddy" in request.node.name:
            return  # it passes the answer on when it has the whole body
        too_large = web.ask("POST", "/api/v1/files", body=b"x", Content_Length="99999999999")
        assert too_large.status == 413
