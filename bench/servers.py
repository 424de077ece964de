"""The servers that are measured, each in its own process on the server core, with its data in a fresh folder."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.meter import SERVER_CORE
from mqtt_im.load.broker import Broker
from mqtt_im.testing import free_ports

GENERATOR_CORE = 1
OURS, MOSQUITTO, AMQTT = "mqtt-im", "mosquitto", "amqtt"
STARLETTE = "starlette"
"""An empty answer over HTTP, and nothing else."""
EVERY_SERVER = (OURS, MOSQUITTO, AMQTT)
_STOCK = {AMQTT: "bench.stock_amqtt", STARLETTE: "bench.http.stock"}
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Broker):
    """A running server."""

    name: str
    pid: int
    directory: Path
    http_port: int
    """Of ours, and of those that speak nothing else."""


class ServerFailed(Exception):
    """A server did not start, or is not there."""


def prepare() -> None:
    """This process runs on the generator core and may open as many sockets as the system allows."""
    os.sched_setaffinity(0, {_core(GENERATOR_CORE)})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def running(
    name: str,
    settings: Mapping[str, str] | None = None,
    data: Path | None = None,
    passwords: Mapping[str, str] | None = None,
    *,
    pinned: bool = True,
    port: int = 0,
) -> Iterator[Server]:
    """One server, ready for connections, stopped at the end.

    `settings` are `--set` values of ours; `data` is a data directory to go on with; `passwords` switches
    from anonymous logins to these accounts; where it is not `pinned` to the server core, it may use all of them. `port` is
    where it listens; any free one where none is named.
    """
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        directory = data or Path(folder)
        free, health = free_ports(2)
        port = port or free
        if name == OURS:
            command = _ours(directory, port, health, settings or {}, passwords)
        elif name == MOSQUITTO:
            command = _mosquitto(Path(folder), port, passwords)
        else:
            command = [sys.executable, "-m", _STOCK[name], str(health if name == STARLETTE else port)]
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = _spawn(command, output, pinned=pinned)
        try:
            _wait(process, lambda: _healthy(health) if name == OURS else _accepts(health if name == STARLETTE else port), log)
            yield Server(name=name, pid=process.pid, port=port, http_port=health, directory=directory, is_ours=name == OURS)
        finally:
            _stop(process)


def available(names: Sequence[str]) -> list[str]:
    """Those of the servers that this machine has."""
    return [name for name in names if name != MOSQUITTO or shutil.which("mosquitto")]


def _core(wanted: int) -> int:
    return wanted % (os.cpu_count() or 1)


def _spawn(command: Sequence[str], output: object, *, pinned: bool) -> subprocess.Popen[bytes]:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_core(SERVER_CORE)} if pinned else range(os.cpu_count() or 1))  # a child starts where its parent is
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)  # type: ignore[call-overload, no-any-return]
    finally:
        os.sched_setaffinity(0, own)


def _ours(directory: Path, port: int, health: int, settings: Mapping[str, str], passwords: Mapping[str, str] | None) -> list[str]:
    merged = {
        "data_dir": str(directory),
        "mqtt.bind": f"127.0.0.1:{port}",
        "websocket.bind": "",
        "http.bind": f"127.0.0.1:{health}",
        "auth.mode": "accounts" if passwords else "open",
        "limits.requests_per_second": "1000000",
        **settings,
    }
    options = [part for key, value in merged.items() for part in ("--set", f"{key}={value}")]
    if passwords:
        for user, password in passwords.items():
            add = [sys.executable, "-m", "mqtt_im", "user", "add", user, "--password-stdin"]
            environment = {**os.environ, "MQTT_IM__DATA_DIR": str(directory)}
            done = subprocess.run(add, input=password.encode(), env=environment, capture_output=True, check=False)
            if done.returncode:
                raise ServerFailed(f"user add failed: {done.stderr.decode().strip()}")
    return [sys.executable, "-m", "mqtt_im", "serve", *options]


def _mosquitto(directory: Path, port: int, passwords: Mapping[str, str] | None) -> list[str]:
    # In-flight and queue limits are off so that it never drops or holds back what the scenarios send.
    lines = [
        f"listener {port} 127.0.0.1",
        "persistence false",
        "log_dest none",
        "set_tcp_nodelay true",
        "max_inflight_messages 0",
        "max_queued_messages 0",
        "user root" if os.geteuid() == 0 else "",
    ]
    if passwords:
        accounts = directory / "passwords"
        accounts.touch(mode=0o600)
        for user, password in passwords.items():
            subprocess.run(["mosquitto_passwd", "-b", str(accounts), user, password], check=True, capture_output=True)
        lines += ["allow_anonymous false", f"password_file {accounts}"]
    else:
        lines.append("allow_anonymous true")
    config = directory / "mosquitto.conf"
    config.write_text("\n".join(lines) + "\n")
    return ["mosquitto", "-c", str(config)]


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.02)
    raise ServerFailed(f"{process.args!r} did not start: {log.read_text(errors='replace')[-2000:]}")


def _healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
