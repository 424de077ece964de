"""INV-16, and: no client costs others more than a blink. Every attack of `bench/attacks`, a moment each.

How long others wait is measured by `python -m bench hostile`; here nothing is lost, in disorder, or grown.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.attacks import ATTACKS, FOE, GROUP, MEMBERS, WEB, Ports
from bench.grounds import ACCOUNTS, JWT, OPEN, PROXY, Ground, ground_of, make
from bench.hostile import certificate
from mqtt_im.testing import ServerProcess, Value, free_ports
from tests.support.im import ImClient
from tests.support.raw import eventually
from tests.support.web import Web
from tests.system.conftest import Clients, verified

_MESSAGES = 60
_MAX_GROWTH = 150 << 20


@pytest.fixture(scope="module")
def mqtts_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, mqtts_port: int) -> Iterator[ServerProcess]:
    settings: dict[str, Value] = {
        "mqtt.tls.bind": f"127.0.0.1:{mqtts_port}",
        "mqtt.plain_topics": ["plain/#"],
        **certificate(tmp_path_factory.mktemp("tls")),
    }
    with ServerProcess(settings) as server:
        clients = Clients(server)
        foe = clients.online(FOE, "prepared")
        foe.must("group.create", id="crowd", group=GROUP, members=[*MEMBERS[:100], "star"])
        foe.must("send", id="first", to=FOE, body="x" * 60_000)
        watchers = [clients.online(name) for name in MEMBERS[:20]]
        for watcher in watchers:
            watcher.subscribe(("im/v1/star/presence", 0))
        yield server
        clients.close()
        assert server.stop() == 0
        verified(server)


@pytest.fixture(scope="module")
def pair(attacked: ServerProcess) -> Iterator[tuple[ImClient, ImClient]]:
    clients = Clients(attacked)
    yield clients.online("alice"), clients.online("bob")
    clients.close()


numbers = itertools.count()


def answer(server: ServerProcess, path: str) -> tuple[int, str]:
    """What is there; nothing where the machine is so busy that it does not come in time."""
    try:
        return server.get(path, timeout_s=10)
    except TimeoutError:
        return 0, ""


def accepted(server: ServerProcess) -> float:
    """Connections that the server has accepted so far, over MQTT and WebSocket."""
    lines = answer(server, "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("mqtt_im_connections_accepted_total{"))


@pytest.mark.parametrize("name", [name for name in ATTACKS if ground_of(name) in (OPEN, ACCOUNTS)])
def test_an_attack_costs_others_nothing(
    name: str, attacked: ServerProcess, mqtts_port: int, pair: tuple[ImClient, ImClient]
) -> None:
    alice, bob = pair
    process = psutil.Process(attacked.pid)
    before, connections = process.memory_info().rss, accepted(attacked)
    ports = (attacked.mqtt_port, attacked.websocket_port, attacked.http_port, mqtts_port)
    command = [sys.executable, "-m", "bench.attacks", name, *map(str, ports)]
    attack = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    try:
        if name not in WEB or "WebSocket" in name:
            eventually(lambda: accepted(attacked) > connections, "the attack has begun")
        bodies = [next(numbers) for _ in range(_MESSAGES)]
        for body in bodies:
            alice.must("send", id=f"m{body}", to="bob", body=body)
        wanted = len(bodies)
        bob.until(lambda: sum(item.data.get("from") == "alice" for item in bob.items) >= wanted, "all of alice's messages")
        assert [item["body"] for item in bob.items if item.data.get("from") == "alice"] == bodies
        bob.events.clear()
        bob._taken.clear()
        alice.events.clear()
        alice._taken.clear()
        eventually(lambda: answer(attacked, "/health/ready")[0] == 200, "the server is ready", timeout_s=180)
        assert attack.poll() is None, "the attack has ended by itself"
    finally:
        attack.kill()
        attack.wait()
    assert process.memory_info().rss - before < _MAX_GROWTH


Door = tuple[ServerProcess, Ground, Ports]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Door]]:
    """A server of each kind, from when it is asked for."""
    made: dict[str, Door] = {}

    def door(kind: str) -> Door:
        if kind not in made:
            (receiver,) = free_ports(1)
            ground = make(kind, tmp_path_factory.mktemp(kind), receiver)
            server = ServerProcess({"mqtt.plain_topics": ["plain/#"], **ground.settings})
            server.start()
            made[kind] = server, ground, Ports(server.mqtt_port, server.websocket_port, server.http_port, 0, receiver)
        return made[kind]

    yield door
    for server, _, _ in made.values():
        assert server.stop() == 0
        verified(server)
        server.close()


@pytest.mark.parametrize("name", [name for name in ATTACKS if ground_of(name) not in (OPEN, ACCOUNTS)])
def test_an_attack_at_a_door_costs_others_nothing(name: str, doors: Callable[[str], Door]) -> None:
    kind = ground_of(name)
    server, ground, ports = doors(kind)
    process = psutil.Process(server.pid)
    before, connections = process.memory_info().rss, accepted(server)
    command = [sys.executable, "-m", "bench.attacks", name, *map(str, ports)]
    with Web(server.http_port) as alice, Web(server.http_port) as bob:
        for web, user in ((alice, "alice"), (bob, "bob")):
            web.token = ground.passwords.get(user) or web.login(user).token
        attack = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
        try:
            if kind in (JWT, PROXY) and "HTTP" not in name:
                eventually(lambda: accepted(server) > connections, "the attack has begun")
            first = next(numbers)
            seq = 0
            for number in range(_MESSAGES):
                seq = alice.must("send", id=f"m{first}-{number}", to="bob", body=number)["seq"]
            page = bob.must("history", conv="alice:bob", after=seq - _MESSAGES, limit=_MESSAGES)
            assert [item["body"] for item in page["items"]] == list(range(_MESSAGES))
            eventually(lambda: answer(server, "/health/ready")[0] == 200, "the server is ready", timeout_s=180)
            assert attack.poll() is None, "the attack has ended by itself"
        finally:
            attack.kill()
            attack.wait()
    assert process.memory_info().rss - before < _MAX_GROWTH
