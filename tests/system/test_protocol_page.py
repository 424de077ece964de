"""The client that docs/protocol.md prints does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from mqtt_im.testing import ServerProcess
from tests.system.conftest import Clients, Name

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_client_of_the_page_chats(server: ServerProcess, im: Clients, name: Name, tmp_path: Path) -> None:
    (code,) = CODE
    alice, bob = name("alice"), name("bob")
    program = tmp_path / "chat.py"
    program.write_text(code, encoding="utf-8")
    peer = im.online(bob)
    with subprocess.Popen(
        [sys.executable, program, alice, "laptop", bob],
        env={**os.environ, "IM_PORT": str(server.mqtt_port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as chat:
        assert chat.stdin is not None and chat.stdout is not None and chat.stderr is not None
        try:
            print("Hello Bob", file=chat.stdin, flush=True)
            assert peer.wait("msg")["body"] == "Hello Bob"
            peer.say(alice, "Hello Alice")
            assert chat.stdout.readline() == f"{bob}: Hello Alice\n"
            print("x" * 70_000, file=chat.stdin, flush=True)
            assert chat.stderr.readline() == "refused: body: 70002 bytes, of at most 65536\n"
            chat.stdin.close()
            assert chat.wait(60) == 0
        finally:
            chat.kill()
    assert [item["body"] for item in peer.items if item.op == "msg"] == ["Hello Bob"]
