"""`mqtt-im chat` in a terminal, played by keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prompt_toolkit.formatted_text import fragment_list_to_text
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from mqtt_im.chat.terminal import Terminal
from mqtt_im.client import Client
from mqtt_im.testing import ServerProcess
from tests.system.conftest import Clients, Name

PATIENCE_S = 60.0

Story = Callable[["Player"], Awaitable[None]]


class Player:
    """Types, and reads what is shown."""

    def __init__(self, terminal: Terminal, keys: PipeInput) -> None:
        self.terminal = terminal
        self._keys = keys

    def type(self, text: str) -> None:
        self._keys.send_text(text)

    @property
    def shown(self) -> str:
        screen = self.terminal.screen
        return "\n".join(fragment_list_to_text(part()) for part in (screen._title, screen._timeline, screen._status))

    @property
    def conversations(self) -> str:
        return fragment_list_to_text(self.terminal.screen._conversations())

    async def sees(self, *parts: str) -> None:
        await self.until(lambda: all(part in self.shown for part in parts))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - what a terminal shows tells nobody that it has changed
                await asyncio.sleep(0.02)


def play(server: ServerProcess, user: str, store: Path, story: Story, to: str | None = None) -> None:
    async def run() -> None:
        url = f"mqtt://127.0.0.1:{server.mqtt_port}"
        with create_pipe_input() as keys:
            async with Client(url, user=user, store=store) as client:
                terminal = Terminal(client, input=keys, output=DummyOutput())
                running = asyncio.create_task(terminal.run(to))
                try:
                    await story(Player(terminal, keys))
                    keys.send_text("\x04")
                    await asyncio.wait_for(running, PATIENCE_S)
                finally:
                    running.cancel()

    asyncio.run(run())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def test_two_people_chat(server: ServerProcess, im: Clients, name: Name, store: Path) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)

    async def story(player: Player) -> None:
        await player.sees(f"{alice}: online")
        player.type("hello bob\r")
        got = await asyncio.to_thread(phone.wait, "msg")
        assert got["body"] == "hello bob"
        await player.sees(f"1 {alice} hello bob ✓")
        await asyncio.to_thread(phone.say, alice, "two\nlines\x1b[2J")
        await player.sees(f"2 {bob} two\n      lines\\e[2J")
        assert (await asyncio.to_thread(phone.wait, "receipt", by=alice, read=2))["conv"] == got["conv"]
        player.type("/react 2 👍\r")
        await player.sees("lines\\e[2J 👍")
        player.type("/edit better\r")
        await player.sees("better (edited)")
        player.type("/reply 2 indeed\r")
        await player.sees(f"╭ 2 {bob}: two", "indeed")
        player.type("/recall 1\r")
        await player.sees("(recalled)")
        player.type("/reat 2\r")
        await player.sees("there is no /reat; did you mean /reply? /help lists all")

    play(server, alice, store, story, to=bob)


def test_groups_and_unread(server: ServerProcess, im: Clients, name: Name, store: Path) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)

    async def story(player: Player) -> None:
        await player.sees(f"{alice}: online", "/to NAME opens a conversation")
        player.type(f"/group crew {bob}\r")
        await player.sees("crew (#", f"made the group “crew” with {alice}, {bob}")
        player.type("all aboard\r")
        assert (await asyncio.to_thread(phone.wait, "msg", body="all aboard"))["conv"].startswith("#")
        await asyncio.to_thread(phone.say, alice, "psst")
        await player.until(lambda: f"{bob} 1" in player.conversations)
        player.type(f"/to {bob}\r")
        await player.sees(f"1 {bob} psst")
        assert f"{bob} 1" not in player.conversations

    play(server, alice, store, story)


def test_what_is_typed_without_a_line_waits(name: Name, store: Path) -> None:
    alice, bob = name("alice"), name("bob")
    with ServerProcess() as server:

        async def story(player: Player) -> None:
            await player.sees(f"{alice}: online")
            await asyncio.to_thread(server.kill)
            await player.sees(f"{alice}: waiting")
            player.type("into the tunnel\r")
            await player.sees("into the tunnel …", "1 unsent")
            await asyncio.to_thread(server.restart)
            await player.sees(f"1 {alice} into the tunnel ✓")

        play(server, alice, store, story, to=bob)
