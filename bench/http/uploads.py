"""Uploads: a gigabyte beside `cp` with fsync, and the memory of a hundred at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter

from bench.http.client import HOST
from bench.http.streams import ADMIN, SETTINGS
from bench.meter import peak_bytes, resident_bytes, usage
from bench.report import Row, Target
from bench.servers import OURS, Server, running
from mqtt_im.load.peer import PeerError

FILE_BYTES = 25 << 20
_FILES = 40
_AT_ONCE = 100
_PIECE_BYTES = 256 * 1024


async def compare() -> list[Row]:
    """Bytes a second of both, file by file in turns; CPU time of the server; memory."""
    speed = Row(
        f"upload of {_FILES} files of 25 MiB, one after the other; cp with fsync",
        "MB/s",
        targets=(Target(0.5, more_is_better=True, over="×"),),
        reference="cp",
    )
    cpu = Row(f"{speed.what}: CPU", "s", reference="cp")
    memory = Row(f"{_AT_ONCE} uploads of 25 MiB at once: memory at most, above before", "MB", targets=(Target(200),))
    # Both on one disk, and not pinned: hashing and writing have threads of their own.
    with running(OURS, SETTINGS, pinned=False) as server, tempfile.TemporaryDirectory(dir=server.directory.parent) as folder:
        source = Path(folder) / "source"
        source.write_bytes(os.urandom(FILE_BYTES))
        content = source.read_bytes()
        copied = uploaded = 0.0
        before, children = usage(server.pid), os.times()
        for number in range(_FILES):
            copied += await asyncio.to_thread(_copy, source, Path(folder) / str(number))
            uploaded += await asyncio.to_thread(_upload, server, content, f"user{number % 2}")
        total = _FILES * FILE_BYTES / 1e6
        after = os.times()
        speed.values = {OURS: total / uploaded, "cp": total / copied}
        cpu.values = {
            OURS: (usage(server.pid) - before).cpu_s,
            "cp": after.children_user + after.children_system - children.children_user - children.children_system,
        }
    with running(OURS, SETTINGS, pinned=False) as server:
        await asyncio.to_thread(_upload, server, content, "first")
        before_bytes = max(resident_bytes(server.pid), peak_bytes(server.pid))
        await asyncio.gather(*(_send(server, content, f"user{number}") for number in range(_AT_ONCE)))
        memory.values[OURS] = (peak_bytes(server.pid) - before_bytes) / 1e6
    return [speed, cpu, memory]


def _copy(source: Path, target: Path) -> float:
    began = perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    took = perf_counter() - began
    target.unlink()
    return took


def _upload(server: Server, content: bytes, user: str) -> float:
    began = perf_counter()
    connection = HTTPConnection(HOST, server.http_port, timeout=120)
    headers = {"Authorization": f"Bearer {ADMIN}", "X-Act-As": user, "Content-Type": "image/jpeg"}
    connection.request("POST", "/api/v1/files?name=one.jpg", content, headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 201:
        raise PeerError(f"an upload was answered with {response.status}: {body[:200]!r}")
    return perf_counter() - began


async def _send(server: Server, content: bytes, user: str) -> None:
    reader, writer = await asyncio.open_connection(HOST, server.http_port)
    head = (
        f"POST /api/v1/files?name=one.jpg HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {ADMIN}\r\nX-Act-As: {user}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode())
    for start in range(0, len(content), _PIECE_BYTES):
        writer.write(content[start : start + _PIECE_BYTES])
        await writer.drain()
    answer = await reader.readline()
    writer.close()
    if b" 201 " not in answer:
        raise PeerError(f"an upload was answered with {answer!r}")
