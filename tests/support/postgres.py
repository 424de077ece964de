"""PostgreSQL for tests: servers in folders of their own, on free loopback ports, gone when the test process is.

PostgreSQL refuses to run as root, so root starts it as the user `postgres` of Debian's package. A `Cluster` can be killed,
frozen and started again on the same folder and port, and have a standby. Databases are cheap: one for each test.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.meta import prepare
from mqtt_im.testing import HOST, free_ports

_USER: Final = "postgres"
_START_S: Final = 60.0
_names = itertools.count(1)


def program(name: str) -> str:
    """The newest installed program of PostgreSQL of this name."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"no {name}: run tools/need-postgresql")
    return path


def _as_postgres() -> dict[str, Any]:
    if os.geteuid():
        return {}
    account = pwd.getpwnam(_USER)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Cluster:
    """One PostgreSQL server; it runs from `start`, or the beginning of `with`, to `close`."""

    def __init__(self, settings: dict[str, str] | None = None, *, data: Path | None = None) -> None:
        """`settings` go over those that suit tests; `data` is a folder to be moved in, in place of a new one."""
        self.port = free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix="mqtt-im-pg-", dir="/tmp"))
        self._give_away(self._folder)
        self.data = self._folder / "data"
        self.settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "fsync": "off",  # what survives a killed process is enough here
            "shared_buffers": "32MB",
            "max_connections": "200",
            "max_wal_senders": "4",
            "wal_level": "replica",
            "dynamic_shared_memory_type": "mmap",  # in the folder, so that nothing is left elsewhere where it is killed
            "logging_collector": "off",
            "log_min_messages": "warning",
            "lc_messages": "C",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        if data is None:
            self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", _USER, "-E", "UTF8", "--locale=C", "--no-sync")
        else:
            shutil.move(data, self.data)

    @staticmethod
    def _give_away(path: Path) -> None:
        if not os.geteuid():
            account = pwd.getpwnam(_USER)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run([program(name), *arguments], check=True, capture_output=True, cwd=self._folder, **_as_postgres())

    def url(self, database: str = "postgres", user: str = _USER) -> str:
        """The URL of a database."""
        return f"postgresql://{user}@{HOST}:{self.port}/{database}"

    @property
    def running(self) -> bool:
        """Whether the server's first process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def processes(self) -> list[int]:
        """All that run now, the first one before the others."""
        return [] if self._process is None else [self._process.pid, *_children(self._process.pid)]

    @property
    def log(self) -> str:
        """What the server has written."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self, *, wait: bool = True) -> None:
        """It runs, and answers where `wait` is set. It ends with the thread that calls this."""
        if self.running:
            return
        options = [part for key, value in self.settings.items() for part in ("-c", f"{key}={value}")]
        # Linux ends it at once (SIGQUIT) when the test process dies, however that happens.
        ours = ["--reuid", _USER, "--regid", _USER, "--clear-groups"] if not os.geteuid() else []
        command = ["setpriv", *ours, "--pdeathsig", "QUIT", program("postgres"), "-D", str(self.data), *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)
        deadline = time.monotonic() + _START_S
        while wait and not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not start: {self.log[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process and all that it has started."""
        if self._process is not None:
            _send(number, self._process.pid, _children(self._process.pid))

    def kill(self) -> None:
        """SIGKILL to everything, as a power cut would; `start` recovers."""
        if self._process is not None:
            children = _children(self._process.pid)  # when it is gone, they are nobody's
            _send(signal.SIGKILL, self._process.pid, children)
            self._process.wait()
            while any(_lives(pid) for pid in children):  # and still have its shared memory
                time.sleep(0.01)

    def stop(self, *, fast: bool = True) -> None:
        """A shutdown that cuts its connections: in good order (`fast`), or at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT if fast else signal.SIGQUIT)
            self._process.wait(_START_S)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Nothing of it answers any more, while its sockets stay open."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.signal(signal.SIGCONT)

    def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser; its rows, where it has some."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def role(self, name: str) -> Iterator[None]:
        """A user who may connect, and owns nothing."""
        self.execute(f"CREATE ROLE {name} LOGIN")
        try:
            yield
        finally:
            self.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")

    def create(self, template: str = "template0") -> str:
        """A new database, a copy of `template`; its name."""
        name = f"test_{os.getpid()}_{next(_names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
        return name

    def drop(self, name: str) -> None:
        """The database is gone, whoever still uses it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def standby(self) -> Cluster:
        """A running standby of this server, which follows it; it is synchronous where `synchronous_standby_names` says so."""
        target = self._folder / "standby"
        self._run(
            "pg_basebackup", "-h", HOST, "-p", str(self.port), "-U", _USER, "-D", str(target), "-R", "-X", "stream", "-c", "fast"
        )
        other = Cluster(dict(self.settings) | {"synchronous_standby_names": ""}, data=target)
        other.settings |= {"port": str(other.port), "unix_socket_directories": str(other._folder)}
        other.start()
        return other

    def promote(self) -> None:
        """The standby takes writes, from when this returns."""
        self.execute("SELECT pg_promote(true, 60)")

    def close(self) -> None:
        """Nothing of it is left."""
        if self.running:
            self.thaw()
            try:
                self.stop(fast=False)  # which gives its shared memory back
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _children(pid: int) -> list[int]:
    """The processes that this one has started."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _send(number: signal.Signals, first: int, children: list[int]) -> None:
    """Signal the first process and all others, of which each leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first, number)
    for pid in {*children, *_children(first)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _lives(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has waited for has."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextlib.contextmanager
def new_database(cluster: Cluster, template: str = "template0") -> Iterator[str]:
    """The URL of a new database, a copy of `template`, which is gone afterwards; an empty one where none is named."""
    name = cluster.create(template)
    try:
        yield cluster.url(name)
    finally:
        if cluster.running:
            cluster.drop(name)


def enter(there: Database, connection: Connection, name: str, folder: Path) -> nodes.Me:
    """A node of this name, which lives on that database; the tables of nodes are made where there are none."""
    folder.mkdir(exist_ok=True)
    prepare(there, connection, nodes.DDL)
    me = nodes.Me(name)
    nodes.register(there, connection, me, folder)
    return me
