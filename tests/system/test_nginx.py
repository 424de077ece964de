"""config/nginx.conf, with real nginx in front of a server."""

from __future__ import annotations

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
CONFIG = {"http.trusted_proxies": ["127.0.0.1"], "auth.admin_token": "admin"}

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


@pytest.fixture
def front(server: ServerProcess, tmp_path: Path) -> Iterator[int]:
    """nginx's port."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    assert nginx is not None, "tools/need-nginx installs it"
    (port,) = free_ports(1)
    text = (ROOT / "config" / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("listen 80;", f"listen {HOST}:{port};").replace("127.0.0.1:8080", f"{HOST}:{server.http_port}")
    (tmp_path / "mqtt-im.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path))
    tmp_path.chmod(0o755)
    process = subprocess.Popen([nginx, "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")])

    def ready() -> bool:
        assert process.poll() is None, (tmp_path / "error.log").read_text()
        try:
            with Web(port) as web:
                return web.ask("GET", "/health/ready").status == 200
        except OSError:
            return False

    try:
        eventually(ready, "nginx")
        yield port
    finally:
        process.terminate()
        process.wait(10)


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
            eventually(client.is_connected, "MQTT over WebSocket through nginx")
            client.publish("im/v1/alice/phone/up", '{"op": "send", "to": "alice", "body": "hello"}', qos=1).wait_for_publish(20)
            assert stream.wait("msg").data["body"] == "hello"
            with Web(server.http_port, "admin", X_Act_As="alice") as admin:
                found = admin.ask("GET", "/api/v1/admin/connections").data["connections"]
            assert {entry["protocol"].rpartition("/")[2] for entry in found} == {"ws", "sse"}
        finally:
            client.disconnect()
            client.loop_stop()


def test_the_clients_address_is_known(server: ServerProcess, front: int) -> None:
    with Web(front, X_Forwarded_For="192.0.2.7") as web, Web(server.http_port, "admin") as admin:
        web.login("bob")
        with Events(front, web.token, X_Forwarded_For="192.0.2.7") as stream:
            stream.wait("welcome")
            found = admin.ask("GET", "/api/v1/admin/connections").data["connections"]
            assert [entry["address"] for entry in found if entry["user"] == "bob"] == ["192.0.2.7"]


def test_files_pass(front: int) -> None:
    with Web(front).login("carol") as web:
        body = bytes(range(256)) * 20_000
        made = web.ask("POST", "/api/v1/files?name=big.bin", body=body, Content_Type="application/octet-stream")
        assert (made.status, made.data["size"]) == (201, len(body))
        web.must("send", to="carol", body="see", files=[made.data["id"]])
        got = web.ask("GET", f"/api/v1/files/{made.data['id']}")
        assert (got.status, got.body == body) == (200, True)
        part = web.ask("GET", f"/api/v1/files/{made.data['id']}", Range="bytes=1-3")
        assert (part.status, part.body) == (206, b"\x01\x02\x03")
        too_large = web.ask("POST", "/api/v1/files", body=b"x", Content_Length="99999999999")
        assert too_large.status == 413
