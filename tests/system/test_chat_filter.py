"""`mqtt-im chat` without a terminal: lines in, messages out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.system.conftest import Clients, Name


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}


class Chat:
    """Runs the command as a user of one server."""

    def __init__(self, server: ServerProcess, environment: dict[str, str]) -> None:
        self.command = [sys.executable, "-m", "mqtt_im", "chat", "--url", f"mqtt://127.0.0.1:{server.mqtt_port}"]
        self.environment = environment

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            env=self.environment,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self.environment
        )


@pytest.fixture
def chat(server: ServerProcess, environment: dict[str, str]) -> Chat:
    return Chat(server, environment)


def test_each_line_is_a_message_and_what_comes_is_printed(chat: Chat, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    ended = chat(alice, "--to", bob, stdin="one\n\n  \ntwo\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [phone.wait("msg")["body"] for _ in range(2)] == ["one", "two"]
    with chat.start(alice, "--follow") as listening:
        assert listening.stdout is not None
        phone.say(alice, "three\x1b[31m\nfour")
        assert listening.stdout.readline() == f"{bob}: three\\e[31m\\nfour\n"
        listening.send_signal(signal.SIGINT)
        assert listening.wait(60) == 0


def test_lines_come_from_files_and_devices_too(chat: Chat, im: Clients, name: Name, tmp_path: Path) -> None:
    """A program that runs without a terminal, of cron or systemd, has /dev/null as its stdin."""
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    lines = tmp_path / "lines"
    lines.write_text("one\ntwo")
    for path in (Path("/dev/null"), lines):
        with path.open() as stdin:
            command = [*chat.command, alice, "--to", bob]
            ended = subprocess.run(
                command, stdin=stdin, capture_output=True, text=True, timeout=60, env=chat.environment, check=False
            )
        assert (ended.returncode, ended.stderr) == (0, "")
    assert [phone.wait("msg")["body"] for _ in range(2)] == ["one", "two"]


def test_json_in_and_out(chat: Chat, im: Clients, name: Name) -> None:
    alice, bob, carol = name("alice"), name("bob"), name("carol")
    phone, other = im.online(bob), im.online(carol)
    lines: list[dict[str, Any]] = [{"body": {"a": 1}, "ttl": 60}, {"to": carol, "body": "x", "id": "mine"}]
    ended = chat(alice, "--to", bob, "--json", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert phone.wait("msg")["body"] == {"a": 1}
    assert other.wait("msg")["id"] == "mine"
    broken = chat(alice, "--to", bob, "--json", stdin='{"body": \n{"body": 1}\n[]\n')
    assert broken.returncode == 1
    assert [line[:16] for line in broken.stderr.splitlines()] == ["mqtt-im: line 1:", "mqtt-im: line 3:"]
    assert phone.wait("msg")["body"] == 1
    with chat.start(alice, "--json", "--follow") as listening:
        assert listening.stdout is not None
        phone.say(alice, [1, "é"])
        item = json.loads(listening.stdout.readline())
        assert (item["op"], item["from"], item["body"]) == ("msg", bob, [1, "é"])
        listening.send_signal(signal.SIGINT)
        assert listening.wait(60) == 0


def test_one_message_and_wrong_calls(chat: Chat, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    assert chat(alice, "--to", bob, "--send", "hi", stdin="not read\n").returncode == 0
    assert phone.wait("msg")["body"] == "hi"
    for arguments, stdin in (([alice, "--send", "hi"], ""), ([alice], "nobody\n"), (["no name"], "")):
        wrong = chat(*arguments, stdin=stdin)
        assert wrong.returncode == 2, arguments
        assert wrong.stderr.startswith("mqtt-im: ") and len(wrong.stderr.splitlines()) == 1


def test_what_could_not_be_sent_is_sent_the_next_time(environment: dict[str, str], name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    with ServerProcess() as server:
        chat = Chat(server, environment)
        server.kill()
        late = chat(alice, "--to", bob, "--send", "kept", "--timeout", "1")
        assert late.returncode == 1
        assert "kept, and sent the next time" in late.stderr
        server.restart()
        assert chat(alice, "--to", bob, "--send", "again").returncode == 0
        with chat.start(bob, "--follow") as listening:
            assert listening.stdout is not None
            assert [listening.stdout.readline() for _ in range(2)] == [f"{alice}: kept\n", f"{alice}: again\n"]
            listening.send_signal(signal.SIGINT)
            assert listening.wait(60) == 0


def test_a_wrong_password_is_one_line(environment: dict[str, str]) -> None:
    with ServerProcess({"auth.mode": "accounts"}) as server:
        assert server.command("user", "add", "alice", "--password-stdin", stdin="correct horse").returncode == 0
        chat = Chat(server, environment)
        wrong = chat("alice", "--to", "alice", "--password-stdin", stdin="wrong\nhi\n")
        assert wrong.returncode == 1
        assert len(wrong.stderr.splitlines()) == 1
        right = chat("alice", "--to", "alice", "--password-stdin", stdin="correct horse\nhi\n")
        assert (right.returncode, right.stderr) == (0, "")
