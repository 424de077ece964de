"""The primary dies under load and its synchronous standby is promoted: how long nothing is committed, and what is missing."""

from __future__ import annotations

import threading
import time
from typing import Final

from bench.report import Row, Target
from bench.servers import OURS
from mqtt_im.core.records import Message, decode
from tests.support.postgres import Cluster, new_database

from .ledgers import SETTINGS, Writer, node

_BATCH: Final = 64
_AGAIN_S: Final = 0.1
_PATIENCE_S: Final = 60.0


class _Load(threading.Thread):
    """Commits without end, and again from the next message where a batch has failed."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(daemon=True)
        self._writer = writer
        self.stop = False
        self.times: list[float] = []
        """When each batch was acknowledged."""
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        """See `Thread`."""
        writer, engine = self._writer, self._writer.engine
        while not self.stop:
            first = writer.count
            try:
                writer.commit(_BATCH)
            except engine.errors:
                self._recover()
                continue
            self.times.append(time.perf_counter())
            self.acknowledged.update(f"failover-{number}" for number in range(first + 1, writer.count + 1))

    def _recover(self) -> None:
        engine = self._writer.engine
        while not self.stop:
            try:
                engine.load()
                engine.probe()
            except engine.errors:
                time.sleep(_AGAIN_S)
            else:
                return


def compare(seconds: float) -> list[Row]:
    """One node writes for `seconds` before and after."""
    with Cluster(SETTINGS) as primary, new_database(primary) as url:
        standby = primary.standby()
        try:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            name = url.rpartition("/")[2]
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            with node(f"postgresql://postgres@{hosts}/{name}", "one") as engine:
                load = _Load(Writer(engine, "failover"))
                load.start()
                time.sleep(seconds)
                primary.kill()
                standby.promote()
                promoted = time.perf_counter()
                took = _next_commit(load, promoted) - promoted
                time.sleep(seconds)
                load.stop = True
                load.join()
            records = (decode(bytes(data)) for (data,) in standby.execute("SELECT rec FROM log", name))
            there = {record.id for record in records if isinstance(record, Message)}
        finally:
            standby.close()
    lost = len(load.acknowledged - there)
    return [
        Row("fail-over: from promotion to the next commit", "s", {OURS: took}, (Target(3, 1),)),
        Row("fail-over: messages acknowledged", "", {OURS: len(load.acknowledged)}),
        Row("fail-over: acknowledged and lost", "", {OURS: lost}, (Target(0),)),
    ]


def _next_commit(load: _Load, after: float) -> float:
    deadline = after + _PATIENCE_S
    while not load.times or load.times[-1] < after:
        if time.perf_counter() > deadline or not load.is_alive():
            raise TimeoutError("nothing was committed after the promotion")
        time.sleep(0.005)
    return next(at for at in load.times if at >= after)
