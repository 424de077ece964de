"""`GET /api/v1/events`: a user's inbox, or one device's delivery, as server-sent events.

A stream is the link of a channel: what devices get as packets leaves here as events, from the same deliveries. They are
written to the socket itself, one write for all events of a turn of the loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import Route

from mqtt_im.bridge.nearby import TOPIC as PRESENCE
from mqtt_im.bridge.service import Bridge
from mqtt_im.core.rules import Who
from mqtt_im.http.asgi import Receive, Scope, Send, header
from mqtt_im.http.connection import UNREAD, HttpConnection
from mqtt_im.http.errors import Problem, too_fast, unavailable
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.tickets import Tickets
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.codec import encode_json
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.names import is_device
from mqtt_im.shares import Bounds
from mqtt_im.store.jobs.devices import DeviceState
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.transport.guest import Guest

COMMENT_S: Final = 14.0
USUAL_TURN_BYTES: Final = 128 << 10
"""What a stream is given in one turn of the loop, and an event more; the rest waits in the store."""
USUAL_UNREAD_BYTES: Final = 32 << 20
"""What all streams together may leave unread; above it each is given one event at a time."""
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_TOO_FAST: Final = {
    "logins": "you open streams too fast; try again in a while",
    "max_connections_per_user": "you have too many connections; close one",
}
_BUSY: Final = {
    "max_connections": "the server has too many connections",
    "stopping": "the server is stopping",
}


class Unread:
    """What streams have been given and their clients have not read, in bytes, of all together."""

    def __init__(self, bounds: Bounds) -> None:
        """`bounds` give a share of what the process may take."""
        self._turn, self._most = bounds.of(USUAL_TURN_BYTES), bounds.of(USUAL_UNREAD_BYTES)
        self.bytes = 0

    @property
    def turn(self) -> int:
        """Bytes after which a stream waits until they are read."""
        return self._turn if self.bytes < self._most else 0


class Stream(Guest):
    """One open stream."""

    def __init__(self, services: Services, connection: HttpConnection, chunked: bool, unread: Unread, **who: Any) -> None:
        """`chunked`: the body goes in chunks (HTTP/1.1), else until the connection's end. `who`: see `Guest`."""
        super().__init__(**who)
        self._of_all = unread
        self._unread = 0
        """Bytes that wait for the client, as far as they are counted with those of all."""
        self.writable = False  # until the head and the welcome are written
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._services = services
        self._connection = connection
        self._chunked = chunked
        self._out: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def open(self, welcome: dict[str, Any]) -> None:
        """The head of the answer was written: events follow, the welcome first."""
        if self.closed:
            return
        # So that the stream learns at once when its client does not read: what waits, waits in the store. Not 0, which over TLS
        # an empty buffer reaches already.
        self._connection.transport.set_write_buffer_limits(high=1)
        self._connection.stream = self
        self._write(b"event: welcome\ndata: %b\n\n" % encode_json(welcome))
        self._timer = asyncio.get_running_loop().call_later(COMMENT_S, self._comment)
        self.writable = not self._connection.flow.write_paused

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
    ) -> bool:
        """See `Link`: an item, with its `pos` as `id`, or an event."""
        if not self.closed:
            self._write(b"event: presence\ndata: %b\n\n" % payload if topic == PRESENCE else event_of(payload))
        return True

    def _write(self, data: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)
        self._size += len(data)
        if self._size > self._of_all.turn:
            self._flush()
            self.writable = self.writable and not self._connection.flow.write_paused

    def _flush(self) -> None:
        if not self._out or self.closed:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._size = 0
        transport = self._connection.transport
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        self._count(transport.get_write_buffer_size())

    def _count(self, unread: int) -> None:
        self._of_all.bytes += unread - self._unread
        self._unread = unread

    def _comment(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(COMMENT_S, self._comment)
        if self.writable:
            self._write(b":\n\n")

    # Told by the connection.

    def paused(self) -> None:
        """The client does not read as fast as events come."""
        self.writable = False

    def resumed_writing(self) -> None:
        """It has read what there was."""
        if not self.closed:
            self._count(0)
            self.writable = True
            self._services.bridge.writable(self)

    def end(self, reason: str, *, abort: bool = False) -> None:
        """It is over: the client has gone, or may not stay."""
        if self.closed:
            return
        self._flush()
        self.closed = True
        self.writable = False
        self._count(0)
        if self._timer is not None:
            self._timer.cancel()
        self._services.metrics.count("closes", reason=reason)
        self._services.streams.discard(self)
        self._services.bridge.presence.nearby.remove(self)
        self._services.bridge.detached(self)
        self._services.transport.leave(self)
        if not self.ended.done():
            self.ended.set_result(None)


def event_of(payload: bytes) -> bytes:
    """An item or event, as JSON, in the form of an event stream: items begin with their `op` and `pos`."""
    end = payload.index(b'"', 7)
    op = payload[7:end]
    if payload.startswith(b'"pos":', end + 2):
        start = end + 8
        stop = start
        while 48 <= payload[stop] <= 57:
            stop += 1
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (payload[start:stop], op, payload)
    return b"event: %b\ndata: %b\n\n" % (op, payload)


class Events:
    """Answers `events`."""

    def __init__(self, desk: Desk, tickets: Tickets, bounds: Bounds) -> None:
        """`bounds` give what is unread a share of the memory."""
        self._unread = Unread(bounds)
        self._desk = desk
        self._tickets = tickets

    def routes(self) -> list[Route]:
        """Where they are."""
        return [Route("/api/v1/events", _Endpoint(self))]

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a stream; returns at its end. Raises `Problem`."""
        if scope["method"] != "GET":
            raise Problem("method_not_allowed", "events are read with GET", {"Allow": "GET"})
        services = self._desk.open()
        caller = await self._tickets.caller(services, scope, "events")
        query = Request(scope).query_params
        device = query.get("device", "")
        if "device" in query and not is_device(device):
            raise Problem("bad_field", "device: a device id is 1 to 64 of A-Z a-z 0-9 _ . -")
        after = None if device else _position(header(scope, b"last-event-id"), query.get("after"))
        connection: HttpConnection = scope["mqtt_im.connection"]
        address = self._tickets.address(scope)
        stream = Stream(
            services,
            connection,
            scope["http_version"] == "1.1",
            self._unread,
            user=caller.user,
            device=device,
            address=address,
            lease=caller.lease,
        )
        services.streams.add(stream)
        connection.stream = stream
        try:
            welcome = await self._begin(services, stream, after)
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            stream.open(welcome)
            if device:
                services.bridge.attached(stream)
            else:
                services.bridge.writable(stream)
            services.bridge.presence.nearby.add(stream)
            await stream.ended
            await send({"type": "http.response.body", "body": b""})
        except Refusal as refusal:
            raise Problem.of(refusal) from None
        finally:
            connection.stream = None
            if not connection.transport.is_closing():
                connection.transport.set_write_buffer_limits(high=UNREAD)
            stream.end("lost")

    @staticmethod
    async def _begin(services: Services, stream: Stream, after: int | None) -> dict[str, Any]:
        why = await services.transport.join(stream)
        if why in _TOO_FAST:
            raise too_fast(_TOO_FAST[why], 1)
        if why:
            raise unavailable(_BUSY.get(why, why))
        bridge = services.bridge
        if stream.device:
            state = await _register(bridge, stream.user, stream.device)
            pos, head, floor = state.cursor, state.head, state.floor
        else:
            pos, head, floor = await bridge.watch_inbox(stream, after)
        return {
            "pos": pos,
            "head": head,
            "floor": floor,
            "epoch": bridge.ledger.epoch,
            "limits": bridge.uplinks.limits(0),
            "ts": bridge.ledger.clock.told(),
        }


class _Endpoint:
    """What starlette takes for an application, so that it leaves the method to us."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._events.serve(scope, receive, send)


def _position(last_event_id: str | None, after: str | None) -> int | None:
    text = after if last_event_id is None else last_event_id
    if text is None:
        return None
    name = "after" if last_event_id is None else "Last-Event-ID"
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise Problem("bad_field", f"{name}: expected the number of an item")
    return int(text)


async def _register(bridge: Bridge, user: str, device: str) -> DeviceState:
    """The device is registered, with `ack: "app"` for good. Raises `Refusal`."""
    who, hello = Who(user, device, 0), rq.Hello(ack="app")
    job = await bridge.ledger.ask(lambda notify: RequestJob(who, hello, notify), bridge.telling.tell)
    assert job.device_state is not None
    return job.device_state
