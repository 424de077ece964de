"""The client library's guarantees, each with a process that is killed with SIGKILL where it would hurt."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from mqtt_im.client import Client
from mqtt_im.testing import ServerProcess
from tests.support.clients import PATIENCE_S, run
from tests.support.proxy import Fault, ProxyThread, Way
from tests.system.conftest import Name

COUNT = 12
KILLS = [
    *(("before-write", step) for step in (1, 2, 4, 7, 11)),
    *(("after-write", step) for step in (1, 2, 3, 6, 10)),
    *(("out", step) for step in (1, 2, 3, 5)),
    *(("sent", step) for step in (1, 2, 3, 6)),
    *(("in", step) for step in (1, 2, 3, 4, 7)),
    ("none", 0),
]


class App:
    """The program `tests.support.client_app`, started again and again on one store."""

    def __init__(self, mode: str, url: str, user: str, peer: str, folder: Path, count: int = COUNT) -> None:
        self.mode, self.url, self.user, self.peer, self.count = mode, url, user, peer, count
        self.store = folder / f"{user}.db"
        self.lines: list[list[str]] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, kind: str = "none", step: int = 0) -> None:
        arguments = [self.mode, self.url, self.user, self.peer, str(self.store), str(self.count), kind, str(step)]
        command = [sys.executable, "-m", "tests.support.client_app", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def end(self) -> bool:
        """Wait until it has ended; whether it had done everything."""
        assert self.process is not None
        out, _ = self.process.communicate(timeout=180)
        self.lines += [line.split() for line in out.decode().splitlines()]
        return self.process.returncode == 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def shown(self) -> list[tuple[int, bool, str]]:
        return [(int(pos), again == "1", body) for what, pos, again, _, body in filter(lambda line: line[0] == "got", self.lines)]


def shown_once_and_in_order(app: App, bodies: list[str]) -> None:
    """Each message came once, and again only the one in hand when the process was killed."""
    before, seen = 0, []
    for pos, again, body in app.shown():
        if again and pos == before:
            continue
        assert pos > before, f"{pos} after {before}"
        before = pos
        seen.append(body)
    assert seen == bodies


def all_shown(apps: list[App]) -> None:
    """Start them undisturbed until each has seen everything."""
    for _ in range(10):
        for app in apps:
            app.start()
        ended = [app.end() for app in apps]
        assert all(ended)
        if all(str(app.count - 1) in [body for _, _, body in app.shown()] for app in apps):
            return
    raise AssertionError("something never comes")


async def conversation(server: ServerProcess, user: str, peer: str) -> list[object]:
    async with Client(f"mqtt://127.0.0.1:{server.mqtt_port}", user=user, device="looker") as im:
        return [message.body for message in await im.history(peer, limit=500, timeout=PATIENCE_S)]


def test_an_app_that_is_killed_at_any_step_of_sending(server: ServerProcess, tmp_path: Path, name: Name) -> None:
    """Each start gets a little further, or not; in the end each message is there once, in the order of `send`."""
    app = App("send", f"mqtt://127.0.0.1:{server.mqtt_port}", name("alice"), name("bob"), tmp_path)
    for kind, step in KILLS:
        app.start(kind, step)
        done = app.end()
        assert done or kind != "none"
    accepted = [int(line[1]) for line in app.lines if line[0] == "accepted"]
    assert set(accepted) == set(range(COUNT))

    async def main() -> None:
        assert await conversation(server, app.user, app.peer) == list(range(COUNT))

    run(main)


def test_an_app_that_is_killed_at_any_step_of_receiving(server: ServerProcess, tmp_path: Path, name: Name) -> None:
    """What was in hand comes again, with `again`, and nothing else."""
    url = f"mqtt://127.0.0.1:{server.mqtt_port}"
    app = App("receive", url, name("bob"), name("alice"), tmp_path, count=120)

    async def write() -> None:
        async with Client(url, user=app.peer, device="app") as im:
            sent = [await im.send(app.user, number) for number in range(app.count)]
            await sent[-1].sent(PATIENCE_S)

    run(write)
    for kind, step in KILLS:
        app.start(kind, step)
        app.end()
    all_shown([app])
    shown_once_and_in_order(app, [str(number) for number in range(app.count)])


@pytest.mark.slow
def test_apps_and_server_are_killed_behind_a_bad_line(own_server: ServerProcess, tmp_path: Path, name: Name) -> None:
    """Two apps write to each other, while they, the server and their connections are killed at random."""
    dice = random.Random(7)
    count = 40
    faults = [
        Fault(),
        Fault(up=Way(cut_after=900)),
        Fault(down=Way(cut_after=700)),
        Fault(up=Way(piece=7), down=Way(delay_s=0.02)),
    ]
    with ProxyThread(own_server.mqtt_port) as proxy:
        url = f"mqtt://127.0.0.1:{proxy.port}"
        apps = [
            App("both", url, name("alice"), name("bob"), tmp_path, count),
            App("both", url, name("bob"), name("alice"), tmp_path, count),
        ]
        running: dict[int, App] = {}
        for turn in range(10):
            proxy.set_fault(dice.choice(faults))
            for index, app in enumerate(apps):
                if index not in running:
                    app.start(*dice.choice(KILLS[:-1]))
                    running[index] = app
            if turn % 3 == 2:
                own_server.restart(kill=True)
            proxy.cut()
            victim = dice.choice(list(running))
            if dice.random() < 0.5:
                running[victim].kill()
            running.pop(victim).end()
        proxy.set_fault(Fault())
        for app in running.values():
            app.kill()
            app.end()
        all_shown(apps)
    for app in apps:
        shown_once_and_in_order(app, [str(number) for number in range(count)])

    async def main() -> None:
        found = await conversation(own_server, apps[0].user, apps[1].user)
        assert sorted(map(str, found)) == sorted(str(number) for number in range(count) for _ in apps)

    run(main)
