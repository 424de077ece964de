"""The same load on an empty server and on one with 10,000 idle connections, 100,000 users and 1,000,000 messages.

Two loads: 50 connected pairs drawn at random from all users, which is the figure of the target; and 50 senders whose every
message goes to another user drawn at random from all, mostly away, which is what an index that doesn't fit its cache fears.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from bench.meter import at_rest, folder_bytes, resident_bytes
from bench.pairs import Load, Result, between_pairs, to_anybody
from bench.report import Row, Target
from bench.seed import Size, fill, user_name
from bench.servers import OURS, Server, running
from mqtt_im.load.peer import close_all
from mqtt_im.load.traffic import connect_idle

EMPTY = "empty"
_PAIRS, _SPREAD = "50 pairs drawn from all users", "each message to a user drawn from all"
_ADDRESSES = 5_000
_BUILD_S = 1_800.0
"""What indexing a million messages may take."""
_TARGETS = {
    f"{_PAIRS}: server CPU, lazy work included": (Target(1.3, 1.1, over="×"),),
    f"{_PAIRS}: bytes written (write_bytes)": (Target(6, 2),),
}


async def seeded(directory: Path, size: Size) -> list[Row]:
    """`directory` holds a store of that size, filled unless it does already; says what filling it gave."""
    mark = directory / "seeded"
    if mark.exists() and mark.read_text() == repr(size):
        with running(OURS, data=directory) as server:  # a newer version may first build what the store lacks
            await at_rest(server.pid, limit_s=_BUILD_S)
        return []
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with running(OURS, data=directory) as server:
        begin = time.perf_counter()
        await fill(server, size)
        elapsed = time.perf_counter() - begin
        await at_rest(server.pid, limit_s=_BUILD_S)
        memory = resident_bytes(server.pid)
    begin = time.perf_counter()
    with running(OURS, data=directory):
        start = time.perf_counter() - begin
    mark.write_text(repr(size))
    return [
        Row("filling the store: 10 messages a connection", "msg/s", {OURS: size.messages / elapsed}),
        Row("filled store: on disk", "bytes/msg", {OURS: folder_bytes(directory) / size.messages}),
        Row("filled store: memory of the server", "MB", {OURS: memory / 1e6}),
        Row("filled store: start until ready", "s", {OURS: start}),
    ]


async def compare(size: Size, idle: int, load: Load, keep: Path | None = None) -> list[Row]:
    """Both loads on both servers. `keep` is a folder for the filled store, so that a later run needn't fill it."""
    rows: dict[tuple[str, str], Row] = {}
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        store = keep or Path(folder) / "filled"
        first = await seeded(store, size)
        for what in (_PAIRS, _SPREAD):
            for column, data in ((EMPTY, None), (OURS, store)):
                work = Path(folder) / "work"
                if data:
                    shutil.copytree(data, work)
                    os.sync()  # else the copy is written back while the server waits for its own fdatasync
                with running(OURS, data=work if data else None) as server:
                    result = await _one(server, what, size, idle if data else 0, load)
                shutil.rmtree(work, ignore_errors=True)
                for (figure, unit), value in result.figures().items():
                    title = f"{what}: {figure}"
                    row = rows.setdefault((title, unit), Row(title, unit, targets=_TARGETS.get(title, ()), reference=EMPTY))
                    row.values[column] = value
    return [*first, *rows.values()]


async def _one(server: Server, what: str, size: Size, idle: int, load: Load) -> Result:
    dice = random.Random(7)
    drawn = dice.sample(range(size.users), idle + 2 * load.pairs)
    names = [user_name(number) for number in drawn]
    resting, senders, receivers = names[:idle], names[idle : idle + load.pairs], names[idle + load.pairs :]
    peers = await connect_idle(server, resting)
    try:
        if what == _PAIRS:
            return await between_pairs(server, load, list(zip(senders, receivers, strict=True)))
        others = sorted(set(range(size.users)) - set(drawn[idle : idle + load.pairs]))
        books = [[user_name(number) for number in dice.choices(others, k=_ADDRESSES)] for _ in senders]
        return await to_anybody(server, load, senders, books)
    finally:
        await close_all(peers)
