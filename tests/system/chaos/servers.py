"""What the devices of a run connect to, and what befalls it: one server on SQLite, or some nodes on one PostgreSQL."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from mqtt_im.testing import ServerProcess, Value
from tests.support.jumps import WallClock
from tests.support.postgres import Cluster

CONFIG: dict[str, Value] = {
    "limits.requests_per_second": 100_000,
    "limits.max_connections_per_user": 64,
    "limits.failed_logins_per_minute": 100_000,
}
START_S = 60.0
_SHORT_S, _LONG_S = (0.5, 4.0), (7.0, 9.0)
"""How long a node stands still: not long enough to be declared dead, or long enough."""


class Servers:
    """One or more, all of them running but while `trouble` lasts."""

    def __init__(
        self,
        all_: list[ServerProcess],
        deliveries: list[Path],
        database: Cluster | None,
        kinds: Mapping[str, int],
        plan: Sequence[str],
    ) -> None:
        self.all = all_
        self.deliveries = deliveries
        """Where each of them writes down what its deliveries do."""
        self._kinds = kinds if database is not None else {"a node killed": 1}
        self._plan = list(plan)
        self.troubles: dict[str, int] = {}
        """What has happened, and how often."""
        self._database = database

    @property
    def kills(self) -> int:
        """How often something was killed or stopped."""
        return sum(self.troubles.values())

    def trouble(self, dice: Random, between: Callable[[], None]) -> None:
        """Something is killed, stopped or frozen, and goes on again; `between` is called while it does not run."""
        if self._plan:
            kind = self._plan.pop(0)
        else:
            (kind,) = dice.choices(list(self._kinds), list(self._kinds.values()))
        self.troubles[kind] = self.troubles.get(kind, 0) + 1
        node, pause = dice.choice(self.all), dice.choice((0.0, 0.3))
        match kind:
            case "a node killed":
                node.kill()
                between()
                time.sleep(pause)
                node.start()
            case "a node stopped":
                assert node.stop() == 0, node.log()[-2_000:]
                between()
                node.start()
            case "a node frozen":
                self._freeze(node, dice.uniform(*dice.choice((_SHORT_S, _LONG_S))))
            case "a node frozen until it is dead":
                self._freeze(node, dice.uniform(*_LONG_S))
            case _:
                self._hurt_database(kind, pause)

    @staticmethod
    def _freeze(node: ServerProcess, seconds: float) -> None:
        node.signal(signal.SIGSTOP)
        time.sleep(seconds)
        node.signal(signal.SIGCONT)

    def _hurt_database(self, kind: str, pause: float) -> None:
        database = self._database
        assert database is not None
        if kind == "the database killed":
            database.kill()
            time.sleep(pause)
            database.start()
        else:
            database.restart()

    def problems(self) -> list[str]:
        """What is wrong with them once all are stopped, and with what they have stored."""
        found = []
        for server in self.all:
            if server.running and server.stop() != 0:
                found.append("a server did not stop with exit code 0")
            if "Traceback" in server.log():
                found.append("a traceback in a server's log:\n" + server.log().split("Traceback", 1)[1][:2_000])
        if not found:
            result = self.all[0].command("store", "check")
            if result.returncode:
                found.append(f"store check: {result.stdout}{result.stderr}")
        return found


KINDS = {"a node killed": 10, "a node stopped": 4, "a node frozen": 4, "the database killed": 3, "the database restarted": 2}
"""What may happen where there are nodes, and how often beside the others."""


@contextmanager
def started(
    folder: Path,
    nodes: int,
    wall: WallClock,
    environment: Mapping[str, str] | None,
    kinds: Mapping[str, int],
    plan: Sequence[str],
) -> Iterator[Servers]:
    """One server on SQLite (`nodes` is 0), or so many on a PostgreSQL of their own; all follow the wall clock `wall`."""
    path = os.pathsep.join([wall.folder, (environment or {}).get("PYTHONPATH", wall.package)])
    surroundings = {**(environment or {}), **wall.environment, "PYTHONPATH": path}
    with ExitStack() as undo:
        database, config = None, CONFIG
        if nodes:
            database = undo.enter_context(Cluster())
            config = {**CONFIG, "store.url": database.url(database.create()), "limits.drain_s": 1}
        made, files = [], []
        for number in range(max(1, nodes)):
            own = {**config, "cluster.node": f"n{number}"} if nodes else config
            files.append(folder / f"deliveries{number}")
            around = {**surroundings, "DELIVERIES_FILE": str(files[-1])}
            made.append(undo.enter_context(ServerProcess(own, environment=around, start_timeout_s=START_S)))
        yield Servers(made, files, database, kinds, plan)
