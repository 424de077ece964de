"""Each program of docs/recipes, as it stands there, in each version it speaks, against a real server that is killed in between.

It sends lines to a peer and gets the peer's; nothing may be missing, twice or out of order on either side.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest

from mqtt_im.client.sync import Client, Message
from mqtt_im.testing import ServerProcess
from tests.support.raw import eventually

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes"
ARDUINO = Path(__file__).parent / "arduino"
LINES = 12
KILLED = (4, 8)
PATIENCE_S = 60.0
USER, DEVICE, PEER = "alice", "lamp", "bob"


def compiled(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def paho(_: Path, port: int) -> list[str]:
    return [sys.executable, str(RECIPES / "paho_client.py")]


def aiomqtt(_: Path, port: int) -> list[str]:
    return [sys.executable, str(RECIPES / "aiomqtt_client.py")]


def shell(_: Path, port: int) -> list[str]:
    return ["bash", str(RECIPES / "mosquitto.sh")]


def mqtt_js(folder: Path, port: int) -> list[str]:
    modules = Path(sys.prefix) / "recipes" / "node_modules"
    assert modules.exists(), "tools/need-recipes .venv installs MQTT.js"
    program = str(shutil.copy(RECIPES / "client.mjs", folder))
    (folder / "node_modules").symlink_to(modules)
    return ["node", program]


def paho_c(folder: Path, port: int) -> list[str]:
    program = str(folder / "paho_client")
    compiled("gcc", "-O1", "-Wall", "-Werror", "-o", program, str(RECIPES / "paho_client.c"), "-lpaho-mqtt3c")
    return [program]


def arduino(folder: Path, port: int) -> list[str]:
    """The sketch, on a stand-in for the chip and for PubSubClient that behaves as they do."""
    sketch = str(shutil.copy(RECIPES / "esp32" / "esp32.ino", folder))
    settings = {"IM_HOST": "127.0.0.1", "IM_USER": USER, "IM_DEVICE": DEVICE, "IM_PEER": PEER}
    lines = (RECIPES / "esp32" / "settings.h").read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        name = line.split()[1] if line.startswith("#define") else ""
        if name in settings:
            lines[number] = f'#define {name} "{settings[name]}"'
        elif name == "IM_PORT":
            lines[number] = f"#define IM_PORT {port}"
    (folder / "settings.h").write_text("\n".join(lines) + "\n", "utf-8")
    program = str(folder / "sketch")
    flags = ["-std=c++17", "-Wall", "-Werror", f"-I{ARDUINO}", "-include", "Arduino.h", "-x", "c++"]
    compiled("g++", *flags, sketch, str(ARDUINO / "main.cpp"), "-o", program)
    return [program]


class Program:
    """A running recipe; `lines` is what it has printed."""

    def __init__(self, command: Sequence[str], folder: Path, port: int, settings: dict[str, str]) -> None:
        environment = {**os.environ, "IM_HOST": "127.0.0.1", "IM_PORT": str(port), **settings}
        with (folder / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                [*command, USER, DEVICE, PEER],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.lines: list[str] = []
        self._stdout = self.process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stdout:
            self.lines.append(line.rstrip("\n"))

    def say(self, text: str) -> None:
        self.stdin.write(text + "\n")
        self.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # a shell may have left others of its group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()


FIVE = {"IM_VERSION": "5"}
WEBSOCKET = {"IM_URL": "ws://127.0.0.1:{http_port}/mqtt"}
IN_BETWEEN = "while it was dead, after {}"


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (paho, {}),
        (paho, FIVE),
        (aiomqtt, {}),
        (shell, {}),
        (shell, FIVE),
        (mqtt_js, {}),
        (mqtt_js, WEBSOCKET),
        (paho_c, {}),
        (paho_c, FIVE),
        (arduino, {}),
    ],
)
def test_a_recipe_loses_and_doubles_nothing(
    recipe: Callable[[Path, int], list[str]], settings: dict[str, str], tmp_path: Path
) -> None:
    with ServerProcess() as server:
        url = f"mqtt://127.0.0.1:{server.mqtt_port}"
        told = {key: value.format(http_port=server.http_port) for key, value in settings.items()}
        program = Program(recipe(tmp_path, server.mqtt_port), tmp_path, server.mqtt_port, told)
        try:
            with Client(url, user=PEER, device="desk") as peer:
                there = peer.messages(timeout=PATIENCE_S)
                said = [f'number {number}, "quoted"' for number in range(LINES)]
                heard: list[Message] = []
                answers: list[str] = []
                for number, text in enumerate(said):
                    program.say(text)
                    answers.append(f"answer {number}")
                    peer.send(USER, answers[-1])
                    if number in KILLED:
                        heard += [next(there) for _ in range(number - len(heard))]
                        server.kill()
                        answers.append(IN_BETWEEN.format(number))
                        peer.send(USER, answers[-1])
                        server.start()
                heard += [next(there) for _ in range(LINES - len(heard))]
                assert [message.body for message in heard] == said
                eventually(lambda: len(program.lines) >= len(answers), lambda: f"{program.lines} of {answers}", PATIENCE_S)
                program.stdin.close()
                program.process.wait(PATIENCE_S)
                assert program.lines == [f"{PEER}: {answer}" for answer in answers]
        finally:
            program.close()
        spoken = "mqtt5" if settings or recipe in (mqtt_js, aiomqtt) else "mqtt3"
        spoken += "/ws" if settings == WEBSOCKET else ""
        assert set(re.findall(rf"user={USER} device={DEVICE} .* protocol=(\S+)", server.log())) == {spoken}
        if recipe is not arduino:
            kept = [json.loads(line) for line in (tmp_path / f"{USER}-{DEVICE}.jsonl").read_text("utf-8").splitlines()]
            assert [item["body"] for item in kept if item["op"] == "msg" and item["from"] == PEER] == answers
            positions = [item["pos"] for item in kept]
            assert positions == sorted(set(positions))
