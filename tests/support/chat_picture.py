"""`python -m tests.support.chat_picture`: docs/images/chat.svg, a picture of `mqtt-im chat` as it is, in a real terminal (tmux).

A server is started, others write to alice, and what tmux shows of her chat is drawn, colours and all.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from mqtt_im.client.sync import Client
from mqtt_im.testing import ServerProcess

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "chat.svg"
WIDTH, HEIGHT = 96, 22
PATIENCE_S = 60.0


class Tmux:
    """One terminal in which a command runs."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._socket = str(folder / "tmux")
        size = ("-x", str(WIDTH), "-y", str(HEIGHT))
        self._do("new-session", "-d", *size, "-s", "chat", "-c", str(folder), "env", "TERM=xterm-256color", *command)

    def type(self, text: str) -> None:
        """A line, with Enter."""
        self._do("send-keys", "-t", "chat", "-l", text)
        self._do("send-keys", "-t", "chat", "Enter")

    def begin(self, text: str) -> None:
        """A line that is not ended."""
        self._do("send-keys", "-t", "chat", "-l", text)

    def shown(self, *, colours: bool = False) -> str:
        return self._do("capture-pane", "-p", *(["-e"] if colours else []), "-t", "chat")

    def sees(self, *parts: str) -> None:
        until(lambda: all(part in self.shown() for part in parts), f"{parts} in\n{self.shown()}")

    def close(self) -> None:
        self._do("kill-server")

    def _do(self, *arguments: str) -> str:
        return subprocess.run(["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, check=True).stdout


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.05)


def draw(screen: str, title: str) -> str:
    """What a terminal shows, as SVG without anything from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip("\n")), no_wrap=True, crop=True)
    picture = console.export_svg(title=title, theme=MONOKAI, unique_id="chat")
    picture = re.sub(r"<!--.*?-->\s*", "", picture, flags=re.DOTALL)
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return re.sub(r"Fira Code,? ?", "", picture)


def story(folder: Path, server: ServerProcess) -> str:
    url, http = f"mqtt://127.0.0.1:{server.mqtt_port}", f"http://127.0.0.1:{server.http_port}"
    photo = folder / "tunnel.jpg"
    photo.write_bytes(bytes(48_213))
    command = [sys.executable, "-m", "mqtt_im", "chat", "alice", "--to", "bob", "--url", url, "--http", http]
    with Client(url, user="bob", http=http) as bob, Client(url, user="carol") as carol:
        made = bob.group_create("#crew", ["alice", "carol"], name="Crew").sent(PATIENCE_S)
        assert made.group is not None
        terminal = Tmux(folder, [*command, "--store", str(folder / "alice.db")])
        try:
            terminal.sees("online")
            bob.send("alice", "Are you on the 17:40?").sent(PATIENCE_S)
            terminal.sees("17:40")
            terminal.type("yes, third car. 你在哪里？ 🚆")
            heard = next(message for message in bob.messages(timeout=PATIENCE_S) if message.body)
            bob.read(heard.conv, heard.seq or 0).sent(PATIENCE_S)
            bob.send("alice", "At the door, look:", files=[bob.upload(photo)]).sent(PATIENCE_S)
            terminal.sees("/save")
            terminal.type("/react 1 👍")
            bob.send("alice", "See you in a minute").sent(PATIENCE_S)
            carol.send("alice", "Dinner at eight?").sent(PATIENCE_S)
            carol.send("#crew", "@alice the keys are with bob", mentions=["alice"]).sent(PATIENCE_S)
            terminal.sees("See you in a minute", "carol")
            server.kill()
            terminal.sees("waiting")
            terminal.type("we are in the tunnel, this waits on my disk")
            terminal.sees("…")
            terminal.begin("and then it")
            terminal.sees("bob> and then it")
            return terminal.shown(colours=True)
        finally:
            terminal.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, ServerProcess() as running:
        PICTURE.write_text(draw(story(Path(name), running), "mqtt-im chat alice --to bob"), encoding="utf-8")
    sys.stdout.write(f"{PICTURE}\n")
