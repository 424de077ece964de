"""A real server for other people's tests: on free loopback ports, in a folder of its own, gone when the test is over.

    with ServerProcess({"limits.max_inflight": 8}) as server:
        client.connect(server.host, server.mqtt_port)
        ...
        server.kill()       # SIGKILL, as a power cut would
        server.start()      # the same data, the same ports

`ServerProcess` is `mqtt-im serve` in a process of its own, which can be killed. `ServerThread` is the same server on an
event loop in a thread of this process: quicker to start and open to a debugger, but it can only be stopped. Both
run in open mode (any user name, no password) unless the configuration says otherwise. No server outlives the
process that started it, however that process ends.

With pytest, the fixture `mqtt_im_server` (see `mqtt_im.pytest_plugin`) hands out a running `ServerProcess`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

Value = str | int | float | bool | list[str]
"""What a configuration key may hold."""

HOST = "127.0.0.1"

_READY_POLL_S = 0.02
_LOG_TAIL_LINES = 20

# The child asks Linux to be killed with the thread that started it (prctl PR_SET_PDEATHSIG), so a test run that dies
# by SIGKILL leaves nothing behind; then it is `python -m mqtt_im`.
_CHILD = """\
import os, runpy, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit("the process that started this server is gone")
runpy.run_module("mqtt_im", run_name="__main__", alter_sys=True)
"""

# "The thread that started it" must not be a short-lived one, whichever thread a caller happens to be on.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mqtt-im-starter")


class ServerFailed(Exception):
    """The server did not become ready, or did not stop; the text holds the end of its log."""


class _Server(ABC):
    """What both kinds of server share: a folder, a configuration file in it, ports that stay the same."""

    def __init__(self, config: Mapping[str, Value] | None = None, *, folder: Path | None = None) -> None:
        self.host = HOST
        self.mqtt_port, self.websocket_port, self.http_port = free_ports(3)
        self._temporary = tempfile.TemporaryDirectory(prefix="mqtt-im-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name) if folder is None else folder
        """Holds the configuration, the log and the data; removed by `close` unless the caller named it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.folder / "data"
        self.config_file = self.folder / "mqtt-im.toml"
        self.log_file = self.folder / "server.log"
        self.config: dict[str, Value] = {
            "data_dir": str(self.data_dir),
            "mqtt.bind": f"{HOST}:{self.mqtt_port}",
            "websocket.bind": f"{HOST}:{self.websocket_port}",
            "http.bind": f"{HOST}:{self.http_port}",
            "auth.mode": "open",
            **(config or {}),
        }
        self.configure({})

    def configure(self, changes: Mapping[str, Value]) -> None:
        """Write the configuration with `changes` over it; the server sees it at its next start or SIGHUP."""
        self.config.update(changes)
        lines = [f"{key} = {_toml(value)}\n" for key, value in self.config.items()]
        self.config_file.write_text("".join(lines), encoding="utf-8")

    @abstractmethod
    def start(self) -> None:
        """Start on the same data and ports as before; returns once it is ready."""

    @abstractmethod
    def stop(self, timeout_s: float = 60.0) -> object:
        """Drain and stop. Raises `ServerFailed` where it still runs after `timeout_s`."""

    def log(self) -> str:
        """What the server has written to its log so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def ready(self) -> bool:
        """Whether `/health/ready` answers 200: every listener accepts and the store can commit.

        Where the configuration switches HTTP off: whether the MQTT listener accepts.
        """
        try:
            if not self.config["http.bind"]:
                socket.create_connection((HOST, self.mqtt_port), timeout=5).close()
                return True
            return self.get("/health/ready", timeout_s=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str, timeout_s: float = 60.0) -> tuple[int, str]:
        """Status and text of `GET path` on the HTTP listener. Raises `OSError` where nothing listens or answers."""
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8")

    def close(self) -> None:
        """Stop it where it runs, and remove the folder."""
        try:
            self.stop()
        finally:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _failed(self, what: str) -> ServerFailed:
        tail = "\n".join(self.log().splitlines()[-_LOG_TAIL_LINES:])
        return ServerFailed(f"{what}; the end of its log:\n{tail}")


class ServerProcess(_Server):
    """`mqtt-im serve` in a process of its own.

    `config` goes over the defaults, with dotted keys: `{"limits.max_inflight": 8}`. `environment` is added to the
    environment of the server and of `command`.
    """

    def __init__(
        self,
        config: Mapping[str, Value] | None = None,
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = 180.0,
    ) -> None:
        super().__init__(config, folder=folder)
        self._environment = dict(environment or {})
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there, ready or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerFailed("the server was not started")
        return self._process.pid

    def start(self) -> None:
        """Start it on the same data and ports as before; returns once it is ready. Raises `ServerFailed`."""
        if self.running:
            return
        with self.log_file.open("ab") as log:
            command = self._command("serve")
            process = self._process = _starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._full_environment(),
                cwd=self.folder,
            ).result()
        deadline = time.monotonic() + self._start_timeout_s
        while not self.ready():
            if process.poll() is not None:
                raise self._failed(f"the server ended with {process.returncode} before it was ready")
            if time.monotonic() > deadline:
                self.kill()
                raise self._failed(f"the server was not ready after {self._start_timeout_s} s")
            time.sleep(_READY_POLL_S)

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, which drains; the exit code. Raises `ServerFailed` where it still runs after `timeout_s`."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"the server did not stop within {timeout_s} s of SIGTERM") from None

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, answered or tidied up. Returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGHUP reloads, SIGSTOP and SIGCONT freeze and thaw."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait until the server has ended by itself; its exit code."""
        if self._process is None:
            raise ServerFailed("the server was not started")
        return self._process.wait(timeout_s)

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill) and start again."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def command(self, *arguments: str, stdin: str = "", timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run another command of the program on this server's configuration: `command("store", "check")`."""
        return subprocess.run(
            [sys.executable, "-m", "mqtt_im", *arguments, "-c", str(self.config_file)],
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            env=self._full_environment(),
            cwd=self.folder,
            check=False,
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _CHILD, str(os.getpid()), *arguments, "-c", str(self.config_file)]

    def _full_environment(self) -> dict[str, str]:
        # The server is the package that this process imported, installed or not.
        inherited = os.environ.get("PYTHONPATH")
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, inherited] if inherited else [package])
        # What the environment says of another server's configuration is not meant for this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MQTT_IM_")}
        return {**environment, "PYTHONPATH": path, **self._environment}


class ServerThread(_Server):
    """The same server on an event loop in a thread of this process. Its log goes to this process's `logging`."""

    def __init__(self, config: Mapping[str, Value] | None = None, *, folder: Path | None = None) -> None:
        super().__init__(config, folder=folder)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    @property
    def running(self) -> bool:
        """Whether the thread is there, ready or not."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start it on the same data and ports as before; returns once it is ready. Raises what the server raises."""
        if self.running:
            return
        started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="mqtt-im-server", daemon=True)
        self._thread.start()
        started.result()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Drain and stop it. Raises `ServerFailed` where it still runs after `timeout_s`."""
        if self._thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise self._failed(f"the server did not stop within {timeout_s} s")

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    async def _run(self, started: Future[None]) -> None:
        from mqtt_im.app import Server
        from mqtt_im.config import load

        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = Server(load(self.config_file, environment={}))
            await server.start()
        except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits for the start
            started.set_exception(error)
            return
        started.set_result(None)
        await self._stopping.wait()
        await server.stop()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on, chosen at random.

    They lie below the range from which the kernel takes the ports of outgoing connections: a port of that range could be
    gone after a restart of the server, and a client that keeps trying it while nobody listens ends up
    connected to itself.
    """
    top = 32_768
    with contextlib.suppress(OSError, ValueError):
        top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    found: list[int] = []
    for port in random.SystemRandom().sample(range(min(10_000, top // 2), top), k=1_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                found.append(port)
        if len(found) == count:
            return found
    raise ServerFailed("no free ports on loopback")


def _toml(value: Value) -> str:
    """A configuration value as TOML, of which JSON's strings, numbers, booleans and arrays are a part."""
    return json.dumps(value, ensure_ascii=True)
