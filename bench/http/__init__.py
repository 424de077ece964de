"""The HTTP listener: what its requests, streams and uploads cost, beside MQTT and beside what the machine can do."""

from __future__ import annotations

from bench.http import requests, streams, uploads
from bench.report import Row


async def compare(seconds: float, idle_streams: int) -> list[Row]:
    """Everything, one after the other."""
    return [
        *await requests.compare(seconds),
        *await streams.watched(seconds),
        *await streams.deliveries(seconds),
        *await uploads.compare(),
        *await streams.idle(idle_streams, seconds),
    ]


__all__ = ["compare"]
