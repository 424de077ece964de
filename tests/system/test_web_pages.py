"""The web chat as it is served."""

from __future__ import annotations

import gzip
import re

from mqtt_im.http.chat import FOLDER, release
from mqtt_im.testing import ServerProcess
from tests.support.web import Web


def test_the_page_and_its_worker_name_the_files_of_one_release(server: ServerProcess) -> None:
    with Web(server.http_port) as web:
        page, worker = web.ask("GET", "/"), web.ask("GET", "/sw.js")
        for answer in (page, worker):
            assert answer.headers["cache-control"] == "no-cache"
            assert b"@VERSION@" not in answer.body and b"@FILES@" not in answer.body
        named = re.findall(r'(?:href|src)="([^"]+)"', page.body.decode())
        assert f"web/{release().version}/main.js" in named
        for name in named:
            file = web.ask("GET", f"/{name}")
            assert file.status == 200, name
            assert "immutable" in file.headers["cache-control"]
            assert "default-src 'self'" in file.headers["content-security-policy"]
        for name in release().files:
            assert f'"{name}"'.encode() in worker.body


def test_files_are_sent_compressed_to_those_who_take_it(server: ServerProcess) -> None:
    path = f"/web/{release().version}/vendor/mqtt.esm.js"
    raw = (FOLDER / "vendor" / "mqtt.esm.js").read_bytes()
    with Web(server.http_port) as web:
        zipped = web.ask("GET", path, Accept_Encoding="gzip, br")
        assert zipped.headers["content-encoding"] == "gzip"
        assert gzip.decompress(zipped.body) == raw
        plain = web.ask("GET", path)
        assert plain.body == raw
        assert "content-encoding" not in plain.headers
        assert web.ask("GET", path, If_None_Match=plain.headers["etag"]).status == 304


def test_files_of_another_release_are_not_kept_and_others_not_found(server: ServerProcess) -> None:
    with Web(server.http_port) as web:
        old = web.ask("GET", "/web/0123456789abcdef/main.js")
        assert (old.status, old.headers["cache-control"]) == (200, "no-cache")
        for name in ("vendor/README.md", "../chat.py", "%2e%2e/chat.py", "nothing.js", "index.html"):
            assert web.ask("GET", f"/web/{release().version}/{name}").status == 404, name


def test_the_page_learns_what_server_it_has(server: ServerProcess) -> None:
    with Web(server.http_port) as web:
        facts = web.ask("GET", "/web/server.json").data
        assert facts == {
            "mode": "open",
            "registration": False,
            "websocket": "/mqtt",
            "prefix": "im/v1",
            "push_key": "",
            "user_claim": "sub",
        }
