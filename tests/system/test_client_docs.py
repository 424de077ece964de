"""The bot of docs/client.md, as it stands there, killed and started again."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from mqtt_im.client.sync import Client
from mqtt_im.testing import ServerProcess
from tests.support.clients import PATIENCE_S
from tests.system.conftest import Name

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_bot_survives_restarts(server: ServerProcess, tmp_path: Path, name: Name) -> None:
    (bot,) = re.findall(r"```python\n(import asyncio\nimport sys\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len([line for line in bot.splitlines() if line.strip()]) <= 20
    program = tmp_path / "bot.py"
    program.write_text(bot, "utf-8")
    url = f"mqtt://127.0.0.1:{server.mqtt_port}"
    said = [f"number {number}" for number in range(12)]
    answers: list[str] = []
    with Client(url, user=name("alice")) as im:
        process = subprocess.Popen([sys.executable, str(program), url], cwd=tmp_path)
        try:
            for number, text in enumerate(said):
                im.send("echo", text).sent(PATIENCE_S)
                if number % 4 == 3:
                    process.kill()
                    process.wait()
                    process = subprocess.Popen([sys.executable, str(program), url], cwd=tmp_path)
            deadline = time.monotonic() + 180
            while len(answers) < len(said) and time.monotonic() < deadline:
                answers += [str(message.body) for message in im.messages(timeout=2) if message.sender == "echo"]
        finally:
            process.kill()
            process.wait()
    assert answers == [f"you said {text}" for text in said]


def test_the_readme_shows_the_same_names() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text("utf-8")
    for called in re.findall(r"im\.(\w+)\(", readme):
        assert hasattr(Client, called)
