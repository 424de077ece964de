"""What clients of event streams leave unread is bounded, of one stream and of all (INV-16)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtt_im.http.connection import UNREAD
from mqtt_im.http.errors import Problem
from mqtt_im.http.events import USUAL_TURN_BYTES, USUAL_UNREAD_BYTES, Events, Stream, Unread
from mqtt_im.shares import USUAL_MB, Bounds
from tests.unit.transport.harness import on_loop

ITEM = b'{"op":"msg","pos":1,"body":"%b"}' % (b"x" * 10_000)


class Connection:
    """One whose client reads nothing: what is written stays."""

    def __init__(self) -> None:
        self.waiting = 0
        self.transport = self
        self.flow = SimpleNamespace(write_paused=False)
        self.limit: int | None = 0
        self.stream: Stream | None = None

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        self.limit = high

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.waiting += len(data)
        self.flow.write_paused = True
        assert self.stream is not None
        self.stream.paused()

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def read(self) -> None:
        """Its client has read all of it."""
        self.waiting = 0
        self.flow.write_paused = False
        assert self.stream is not None
        self.stream.resumed_writing()


def opened(unread: Unread) -> tuple[Stream, Connection]:
    nearby = SimpleNamespace(remove=lambda _: None)
    bridge = SimpleNamespace(writable=lambda _: None, detached=lambda _: None, presence=SimpleNamespace(nearby=nearby))
    transport = SimpleNamespace(leave=lambda _: None)
    metrics = SimpleNamespace(count=lambda *_, **__: None)
    services = cast(Any, SimpleNamespace(bridge=bridge, transport=transport, metrics=metrics, streams=set()))
    connection = Connection()
    stream = Stream(services, cast(Any, connection), True, unread, user="ann", device="")
    connection.stream = stream
    stream.writable = True
    return stream, connection


def fill(stream: Stream) -> int:
    """As many events as it takes in one turn of the loop."""
    count = 0
    while stream.writable:
        stream.publish(b"", ITEM, 0)
        count += 1
    return count


@on_loop
async def test_a_stream_takes_so_much_in_a_turn_and_then_waits_for_its_client() -> None:
    unread = Unread(Bounds(USUAL_MB))
    stream, connection = opened(unread)
    fill(stream)
    assert USUAL_TURN_BYTES < connection.waiting <= USUAL_TURN_BYTES + 2 * len(ITEM)
    assert unread.bytes == connection.waiting
    connection.read()
    assert unread.bytes == 0 and stream.writable
    stream.end("lost")


@on_loop
async def test_what_follows_a_stream_on_its_connection_is_counted_as_before() -> None:
    """Each stream that was refused left its connection with 64 KB that nobody counted."""
    stream, connection = opened(Unread(Bounds(USUAL_MB)))
    services = stream._services

    async def join(_: object) -> str:
        return "logins"

    async def caller(*_: object) -> Any:
        return SimpleNamespace(user="ann", lease=None)

    cast(Any, services).transport.join = join
    desk, tickets = SimpleNamespace(open=lambda: services), SimpleNamespace(caller=caller, address=lambda _: "")
    scope = {"type": "http", "method": "GET", "http_version": "1.1", "headers": [], "query_string": b""}
    with pytest.raises(Problem):
        await Events(cast(Any, desk), cast(Any, tickets), Bounds(USUAL_MB)).serve(
            {**scope, "mqtt_im.connection": connection}, cast(Any, None), cast(Any, None)
        )
    assert connection.limit == UNREAD


@on_loop
async def test_above_the_bound_of_all_each_stream_has_one_event_at_a_time() -> None:
    unread = Unread(Bounds(USUAL_MB))
    streams = []
    while unread.bytes < USUAL_UNREAD_BYTES:
        streams.append(opened(unread))
        fill(streams[-1][0])
    assert len(streams) < USUAL_UNREAD_BYTES // USUAL_TURN_BYTES + 1
    late, _ = opened(unread)
    assert fill(late) == 1
    for stream, _ in streams:
        stream.end("lost")
    await asyncio.sleep(0)
    late.end("lost")
    assert unread.bytes == 0


def test_with_little_memory_it_is_less() -> None:
    assert Unread(Bounds(100)).turn < USUAL_TURN_BYTES / 9
