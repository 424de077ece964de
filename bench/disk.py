"""What the disk gives: an append and its fdatasync, the floor under every durable acknowledgement."""

from __future__ import annotations

import os
import tempfile
from time import perf_counter

from bench.report import Row
from mqtt_im.load.figures import percentile

_SAMPLES = 400
_PAGE = 4096
FDATASYNC = "fdatasync"


def sync_times(pages: int, samples: int = _SAMPLES) -> list[float]:
    """Seconds, ordered, that writing so many pages and one fdatasync take, inside a file that has its length already."""
    block = os.urandom(pages * _PAGE)
    times = []
    with tempfile.NamedTemporaryFile(prefix="mqtt-im-bench-") as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, bytes(len(block) * samples), 0)
        os.fsync(descriptor)
        for number in range(samples):
            begin = perf_counter()
            os.pwrite(descriptor, block, number * len(block))
            os.fdatasync(descriptor)
            times.append(perf_counter() - begin)
    return sorted(times)


def reference() -> list[Row]:
    """Rows for batches of 4, 16 and 64 KB."""
    rows = []
    for pages in (1, 4, 16):
        times = sync_times(pages)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            value = percentile(times, share) * 1000
            rows.append(Row(f"disk: write {pages * 4} KB + fdatasync, {name}", "ms", {FDATASYNC: value}))
    return rows
