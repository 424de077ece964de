"""What a process costs, from /proc: CPU time, memory, bytes written; and figures made of samples."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE = 0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SECTOR_BYTES = 512
_REST_CPU_S = 0.03
"""CPU time in half a second that timers and metrics may take in a process at rest."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A process at one moment; the difference of two is what a piece of work cost."""

    wall_s: float
    cpu_s: float
    """User and system time of all its threads, ended ones included."""
    generator_cpu_s: float
    """The same of this process."""
    core_busy_s: float
    """What the server's core was busy with, whoever used it."""
    dirtied_bytes: int
    """`write_bytes`: pages the process made dirty, in bytes: what it makes the disk write, at page granularity."""
    handed_bytes: int
    """`wchar`: what it handed to write(2) and send(2)."""
    disk_bytes: int
    """What reached the block device from anybody, file-system journal included."""

    @property
    def others_share(self) -> float:
        """Share of the wall time in which others had the server's core: well above 0, the wall-clock figures mean nothing."""
        return max(0.0, self.core_busy_s - self.cpu_s) / self.wall_s

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.wall_s - other.wall_s,
            self.cpu_s - other.cpu_s,
            self.generator_cpu_s - other.generator_cpu_s,
            self.core_busy_s - other.core_busy_s,
            self.dirtied_bytes - other.dirtied_bytes,
            self.handed_bytes - other.handed_bytes,
            self.disk_bytes - other.disk_bytes,
        )


def usage(pid: int, directory: Path | None = None) -> Usage:
    """What `pid` has used so far; `directory` names the disk whose counter is read."""
    written = _io(pid)
    own = os.times()
    return Usage(
        wall_s=time.perf_counter(),
        cpu_s=cpu_seconds(pid),
        generator_cpu_s=own.user + own.system,
        core_busy_s=_core_busy_s(),
        dirtied_bytes=written["write_bytes"],
        handed_bytes=written["wchar"],
        disk_bytes=_disk_bytes(directory) if directory else 0,
    )


def cpu_seconds(pid: int) -> float:
    """utime + stime of the process, all threads; the kernel scales both to the run time it keeps in nanoseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def run_seconds(pids: Iterable[int]) -> float:
    """CPU time of processes that have one thread each, to the nanosecond, with that of their children who have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended: then its parent has it
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) * _TICK_S
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return total


def resident_bytes(pid: int) -> int:
    """Private memory of the process (what would be free without it), in bytes; kernel socket buffers not counted."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def peak_bytes(pid: int) -> int:
    """The most memory the process ever had resident, or since `forget_peak`, shared libraries included, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid: int) -> None:
    """From now on `peak_bytes` tells of what the process has resident from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def written_bytes(pid: int) -> int:
    """What the process has had written to disk so far, in bytes."""
    return _io(pid)["write_bytes"]


def folder_bytes(directory: Path) -> int:
    """What the files under `directory` hold."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


async def at_rest(pid: int, quiet_s: float = 5.0, limit_s: float = 180.0) -> None:
    """For `quiet_s` the process has written nothing and used next to no CPU time: what was set off before is over.

    The time is longer than a server puts off its lazy writes, which would else be counted to the work that comes next.
    Raises `TimeoutError` after `limit_s`, since figures taken then would mean nothing.
    """
    deadline = time.perf_counter() + limit_s
    written, cpu, since = _io(pid)["write_bytes"], cpu_seconds(pid), time.perf_counter()
    while time.perf_counter() - since < quiet_s:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"process {pid} did not come to rest within {limit_s:g} s")
        await asyncio.sleep(0.5)
        written_now, cpu_now = _io(pid)["write_bytes"], cpu_seconds(pid)
        if written_now != written or cpu_now - cpu > _REST_CPU_S:
            since = time.perf_counter()
        written, cpu = written_now, cpu_now


def _core_busy_s() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{SERVER_CORE}":
            idle_and_waiting = int(ticks[3]) + int(ticks[4])
            return (sum(int(tick) for tick in ticks[:8]) - idle_and_waiting) * _TICK_S
    return 0.0


def _io(pid: int) -> dict[str, int]:
    pairs = (line.split(":") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def _disk_bytes(directory: Path) -> int:
    device = os.stat(directory).st_dev
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not stat.exists():  # an overlay, a tmpfs: no block device of its own
        return 0
    return int(stat.read_text().split()[6]) * _SECTOR_BYTES
