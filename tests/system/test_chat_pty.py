"""`mqtt-im chat` in a terminal of the system: files sent and saved, another size, and the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.client.sync import Client
from mqtt_im.testing import ServerProcess
from tests.support.clients import PATIENCE_S
from tests.system.conftest import Name

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>])")


class Pty:
    """A program in a pseudo terminal; `text` is what it has written, without what moves the cursor."""

    def __init__(self, command: list[str], folder: Path, rows: int, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(rows, columns)
        environment = {**os.environ, "TERM": "xterm-256color", "XDG_DATA_HOME": str(folder)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self._raw = b""

    @property
    def text(self) -> str:
        return " ".join(_ESCAPES.sub(" ", self._raw.decode("utf-8", "replace")).split())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def sees(self, *parts: str) -> None:
        """All of them have been written since the last call."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(part in self.text for part in parts):
            assert time.monotonic() < deadline, f"{parts} not in {self.text[-2000:]}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._raw += os.read(self._ours, 65_536)
        self._raw = b""

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def chat(server: ServerProcess, tmp_path: Path, name: Name) -> Iterator[Pty]:
    options = ["--url", f"mqtt://127.0.0.1:{server.mqtt_port}", "--http", f"http://127.0.0.1:{server.http_port}"]
    command = [sys.executable, "-m", "mqtt_im", "chat", name("alice"), "--to", name("bob"), *options]
    terminal = Pty(command, tmp_path, 24, 100)
    yield terminal
    terminal.close()


def test_files_are_sent_and_saved(server: ServerProcess, chat: Pty, tmp_path: Path, name: Name) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(bytes(range(256)) * 300)
    url, http = f"mqtt://127.0.0.1:{server.mqtt_port}", f"http://127.0.0.1:{server.http_port}"
    with Client(url, user=name("bob"), http=http) as bob:
        chat.sees("online")
        chat.type(f"/file {picture}\r")
        chat.sees("a picture.png ✓")
        message = next(bob.messages(timeout=PATIENCE_S))
        bob.download(message.files[0]["id"], tmp_path / "bobs.png")
        assert (tmp_path / "bobs.png").read_bytes() == picture.read_bytes()
        bob.send(name("alice"), "and back", files=[bob.upload(picture, name="../back.png")]).sent(PATIENCE_S)
        chat.sees("and back")
        chat.type("/save 2\r")
        chat.sees("saved .._back.png")
        assert (tmp_path / ".._back.png").read_bytes() == picture.read_bytes()
        chat.type("/save 2\r")
        chat.sees("exists already")
        chat.type("/save 2 here.png\r")
        chat.sees("saved here.png")
        chat.type("/file nothing.png\r")
        chat.sees("nothing.png is no file")


def test_it_follows_the_size_of_the_terminal_and_ends_with_its_input(chat: Pty) -> None:
    chat.sees("online")
    chat.resize(12, 50)
    chat.process.send_signal(signal.SIGWINCH)
    chat.type("a line that is longer than the fifty columns that there are now 你好\r")
    chat.sees("你好")
    chat.type("\x04")
    assert chat.process.wait(PATIENCE_S) == 0
