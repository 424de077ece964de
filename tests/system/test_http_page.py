"""What docs/http.md and openapi.json promise: the bot runs, and requests that nobody thought of are answered as described."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from mqtt_im.http.openapi import document
from mqtt_im.http.requests import OPS
from mqtt_im.testing import ServerProcess, Value
from tests.support.raw import eventually
from tests.support.web import Events, Web
from tests.system.conftest import Clients, Name, verified

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
CONFIG: dict[str, Value] = {"limits.requests_per_second": 100_000}


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def acknowledged(server: ServerProcess) -> int:
    """Up to where the bot's device is."""
    with Web(server.http_port).login("echo") as web:
        return int(web.must("devices")["devices"][0]["pos"])


def test_the_bot_answers_and_goes_on_where_it_was(server: ServerProcess, im: Clients, name: Name) -> None:
    api = f"http://127.0.0.1:{server.http_port}/api/v1"
    phone = im.online(name("alice"))
    command = [sys.executable, "-c", block("python")]
    for body in ("one", "two"):
        bot = subprocess.Popen(command, env={**os.environ, "MQTT_IM_API": api}, stderr=subprocess.PIPE)
        try:
            phone.say("echo", body)
            assert phone.wait("msg", body=body)["from"] == "echo"
            eventually(lambda: acknowledged(server) >= 2, "the bot's ack")
        finally:
            bot.kill()
            bot.communicate()


def test_the_shell_sends(server: ServerProcess, im: Clients) -> None:
    phone = im.online("bob")
    environment = {**os.environ, "MQTT_IM_API": f"http://127.0.0.1:{server.http_port}/api/v1"}
    done = subprocess.run(["sh", "-ec", block("sh")], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "from-a-shell"
    assert phone.wait("msg")["body"] == "Hello Bob"


def test_every_op_is_described(server: ServerProcess) -> None:
    with Web(server.http_port) as web:
        told = web.ask("GET", "/api/v1/openapi.json").data
        page = web.ask("GET", "/api/docs")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        for file in re.findall(r'(?:src|href)="(/api/docs/[^"]+)"', page.body.decode()):
            assert web.ask("GET", file).status == 200, file
    assert told == json.loads(json.dumps(document()))
    assert told["openapi"].startswith("3.1")
    assert {f"/api/v1/{op}" for op in OPS} <= set(told["paths"])


def tried(server: ServerProcess, token: str, *which: str) -> None:
    """schemathesis finds nothing that is answered otherwise than described."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"http://127.0.0.1:{server.http_port}/api/v1/openapi.json",
        *("-H", f"Authorization: Bearer {token}"),
        *("--max-examples", "3", "--phases", "coverage,fuzzing", "--seed", "1"),
        *which,
        # Whether a message is there, or a name is taken, stands in no schema.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--generation-database", "none", "--no-color", "--request-timeout", "20"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=server.folder)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


def test_requests_that_nobody_thought_of(server: ServerProcess, name: Name) -> None:
    with Web(server.http_port).login(name("alice")) as web:
        without = [f"/api/v1/{path}" for path in ("events", "logout")]
        excluded = [part for path in without for part in ("--exclude-path", path)]
        tried(server, str(web.token), *excluded, "--exclude-path-regex", "^/api/v1/admin/")
        with Events(server.http_port, web.token) as stream:
            stream.wait("welcome")


def test_administration_that_nobody_thought_of() -> None:
    token = "an-admin-token"
    with ServerProcess({**CONFIG, "auth.mode": "accounts", "auth.admin_token": token}) as server:
        stream = "/api/v1/admin/stats/stream"
        tried(server, token, "--include-path-regex", "^/api/v1/admin/", "--exclude-path", stream)
        assert server.get("/health/ready")[0] == 200
        assert server.stop() == 0
        verified(server)
