"""One HTTP connection: uvicorn's on h11, with bounds on what a slow, idle or flooding client may take.

- A request's head is due within `limits.connect_timeout_s` of its first byte, or of the accept.
- Connections without a request under way give up their place, the longest idle first, when places are short.
- Above all places there are a few spare ones, which health alone is answered on.
- After an answer, a body that was not read is taken in for a moment and thrown away, whether the connection stays or not:
  closing a socket with unread input would lose the answer.
- A client that takes nothing off its full buffer for a minute is gone.
- What comes in is looked at in turns (`turns`), a few events in each. What has come of all requests that are not answered, and
  what is not read of all answers, is bounded in bytes (`held`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

import h11
import msgspec
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from mqtt_im.http.asgi import Message, Receive, Send
from mqtt_im.http.errors import TYPE, Problem, tell, unavailable
from mqtt_im.http.places import Places
from mqtt_im.pacing import pace
from mqtt_im.transport.parting import MAX_BYTES, Parting

MAX_HEAD_BYTES: Final = 32 * 1024
STALLED_S: Final = 60.0
LINGER_S: Final = 5.0
_HEALTH: Final = (b"GET /health/", b"HEAD /health/")
RETRY_S: Final = 5.0
"""After so long who had to give way may try again."""
UNREAD: Final = 4096
"""Bytes of an answer that may wait in memory uncounted: those that a socket does not take of more are counted."""
EVENTS: Final = 8
"""Events that are taken in at once: 256 KiB in chunks of one byte are forty thousand, which would take seconds."""


class EventStream(Protocol):
    """An answer that goes on, and follows how fast its client reads."""

    def paused(self) -> None:
        """The write buffer is full."""

    def resumed_writing(self) -> None:
        """It has room again."""

    def end(self, reason: str, *, abort: bool = False) -> None:
        """The socket is gone."""


def origin_form(target: bytes) -> bytes:
    """The path of a target that begins with scheme and host (RFC 9112, section 3.2.2); any other target as it is."""
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        return target
    path = rest[len(rest.partition(b"/")[0].partition(b"?")[0]) :]
    return path if path.startswith(b"/") else b"/" + path


class Bounded(h11.Connection):
    """Hands out `left` more events; then it says that more data is needed, whether that is so or not."""

    left = EVENTS

    def next_event(self) -> Any:
        """See `h11.Connection`."""
        if not self.left:
            return h11.NEED_DATA
        self.left -= 1
        return super().next_event()

    @property
    def waiting(self) -> int:
        """Bytes that have come, and that no event was made of yet."""
        return len(self._receive_buffer)

    def forget(self) -> None:
        """Nothing will be made of them."""
        self._receive_buffer = ReceiveBuffer()


class HttpConnection(H11Protocol):
    """A connection with a place."""

    def __init__(self, places: Places, websocket: Callable[[], asyncio.Protocol | None], **given: Any) -> None:
        """`websocket` makes what talks to a client that asks for a WebSocket; None while there is nothing to talk to."""
        super().__init__(**given)
        self.conn: Bounded = Bounded(h11.SERVER, MAX_HEAD_BYTES)
        self.places = places
        self.spare = False
        self._websocket = websocket
        self.stream: EventStream | None = None
        """What is being written to this connection for as long as it lasts."""
        self._app = self.app
        self.app = self._run
        self._urgent = False
        """The server's health is asked for."""
        self._waits = False
        """What has come waits for its turn."""
        self.held = 0
        """Bytes of what has come for the request under way, as far as they are in memory, and of answers that are not read."""
        self._unread = 0
        """Those of answers."""
        self._written = 0
        """Bytes that were written last at once: all of them are in memory until the client has read the last of them."""
        self.party = ""
        """Who it is for: the address, and the user as soon as that is known."""
        self._refused = False
        """What comes of this request is not kept."""
        self._head: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._lingering = 0
        self._parting: Parting | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._stalled_bytes = 0

    # Its life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted."""
        super().connection_made(transport)  # type: ignore[arg-type]
        pace(self.transport)
        self.transport.set_write_buffer_limits(high=UNREAD)
        self.party = self._address
        self.places.count("connections_accepted", listener="http")
        self.places.enter(self)
        self._head = self.loop.call_later(self.places.head_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.conn.forget()
        if self._parting is not None and self in self.places.all:
            self._rest()
            self._parting.begin(LINGER_S, self._forget)
        else:
            self._forget()
        if self.stream is not None:
            self.stream.end("lost")
        super().connection_lost(exc)
        # No circle is left, so that what has come is freed now, and not when all memory is looked through.
        self.app = self._app
        self.cycle = self.scope = None  # type: ignore[assignment]
        self._unset_keepalive_if_required()

    def cut(self) -> None:
        """Close it: its place is wanted, or its client does nothing."""
        self._forget()
        self.transport.abort()
        if self._parting is not None:
            self._parting.end()

    def _forget(self) -> None:
        self.places.leave(self)
        self._rest()

    def _rest(self) -> None:
        if self._waits:
            self._waits = False
            self.places.turns.drop(self._address, self._in_turn)
        self._unread = 0
        self.hold(-self.held)
        for timer in (self._head, self._linger, self._stalled):
            if timer is not None:
                timer.cancel()
        self._head = self._linger = self._stalled = None

    def _expect(self) -> None:
        """A request has begun to come, unless one is under way."""
        if self._head is None and self._is_between:
            self._head = self.loop.call_later(self.places.head_s, self._late)

    @property
    def _is_between(self) -> bool:
        """No request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _late(self) -> None:
        self.places.count("http_refused", reason="head_timeout")
        self.cut()

    # Requests

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if self._refused:
            return
        if self._linger is not None:
            self._lingering += len(data)
            if self._lingering > MAX_BYTES:
                self.cut()
                return
        elif not self.flow.write_paused:
            self._expect()
        if data.startswith(_HEALTH):
            self._urgent = True
        super().data_received(data)
        if self._linger is not None:
            self._hold_rest()
        elif not self.transport.is_closing():
            self.hold(len(data))

    def hold(self, size: int) -> None:
        """So much more, or below 0 less, of what has come for a request is in memory; where that is too much, some give way."""
        self.held += size
        for connection in self.places.held.changed(self, size):
            connection.give_way()

    def _hold_rest(self) -> None:
        """The request was answered: what is held is what has come behind it, and what is not read of the answer."""
        if self.transport.is_closing():
            self.conn.forget()
        self.hold(self.conn.waiting + self._unread - self.held)

    def give_way(self) -> None:
        """Keep nothing of the request under way: it is refused where an answer is still possible, else the connection is cut."""
        self.places.count("http_refused", reason="too_much")
        cycle = self.cycle
        if self._refused or cycle is None or cycle.response_started or not (cycle.more_body or cycle.body):
            self.cut()
            return
        self._refused = True
        cycle.keep_alive = False  # nobody knows any more where its end is
        cycle.body = bytearray()
        self.conn.forget()
        self.hold(self._unread - self.held)
        cycle.message_event.set()

    async def arrived(self) -> None:
        """Something of the request under way has come that was not received yet, or no more will. Until then it is held here."""
        cycle = self.cycle
        if cycle is None or self.transport.is_closing():
            return
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            go_on = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[], reason="Continue")
            self.transport.write(self.conn.send(go_on) or b"")
        self.flow.resume_reading()
        await cycle.message_event.wait()

    async def is_read(self) -> bool:
        """The client has taken what was written, but for a little; False where it has gone."""
        await self.flow.drain()
        return not self.transport.is_closing()

    async def _run(self, scope: Any, receive: Receive, send: Send) -> None:
        scope["mqtt_im.connection"] = self
        if not scope["path"].startswith("/"):
            scope["raw_path"] = origin_form(scope["raw_path"])
            scope["path"] = unquote(scope["raw_path"].decode("ascii"))

        async def receiving() -> Message:
            message = await receive()
            if self._refused:
                problem = unavailable("too much of other requests is on its way; send it again later", RETRY_S)
                problem.headers["Connection"] = "close"
                raise problem
            self.hold(-min(self.held - self._unread, len(message.get("body", b""))))
            return message

        async def sending(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_last and self.conn.their_state is h11.SEND_BODY:
                self._part()
            if body := message.get("body"):
                self._written = len(body)
            await send(message)

        if self.spare and not scope["path"].startswith("/health/") and not self.places.found(self):
            self.places.count("http_refused", reason="max_connections")
            problem = unavailable("the server has too many connections", 5)
            problem.headers["Connection"] = "close"
            await tell(problem, sending)
            return
        names = [name for name, _ in scope["headers"]]
        if b"transfer-encoding" in names and b"content-length" in names:  # RFC 9112, section 6.1
            self.places.count("http_refused", reason="malformed")
            detail = "a request has Content-Length or Transfer-Encoding, not both"
            await tell(Problem("bad_payload", detail, {"Connection": "close"}), sending)
            return
        await self._app(scope, receiving, sending)

    def _part(self) -> None:
        """The next that is written is the last of an answer, and may be the last of all, with input that was not read."""
        if self._parting is None and not self.transport.is_closing():
            self._parting = Parting.of(self.loop, self.transport)

    def handle_events(self) -> None:
        """Take in what h11 makes of the bytes, in this turn of the loop or in a later one."""
        if self._waits:
            return
        if self.flow.write_paused and self._is_between and self._linger is None:
            self.flow.pause_reading()  # who does not read an answer is given no further one
            return
        urgent, self._urgent = self._urgent, False
        if not self.places.turns.take(self._address, self._in_turn, urgent=urgent):
            self._waits = True
            self.flow.pause_reading()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _in_turn(self) -> None:
        if self._waits:
            self._waits = False
            if self.transport.is_closing():
                return
            self.flow.resume_reading()
        before = self.cycle
        self.conn.left = EVENTS
        try:
            super().handle_events()
        except Exception:  # told by the loop; nobody would answer, nor read on
            self.cut()
            raise
        if not self.conn.left:
            self.flow.pause_reading()
            self.loop.call_soon(self._go_on)
        if self.cycle is not before and not self.cycle.response_complete:
            self.places.busy(self)
            for timer in (self._head, self._linger):
                if timer is not None:
                    timer.cancel()
            self._head = self._linger = None
        elif self._linger is not None:
            self._hold_rest()

    def _go_on(self) -> None:
        """Take in what there is beside the events of the last turn, if that was not all."""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.handle_events()

    def on_response_complete(self) -> None:
        """The answer was written."""
        self.cycle.body = bytearray()  # of what was answered before it was read, and is not read any more
        self._hold_rest()
        self.party = self._address
        self.places.idle(self)
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            if self._parting is not None:  # it goes on
                self._parting.end()
                self._parting = None
            self._lingering = 0
            self._linger = self.loop.call_later(LINGER_S, self.cut)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too large a head."""
        problem = Problem("bad_payload", "this is no HTTP/1.1 request")
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            problem = Problem("too_large", f"the request's head has more than {MAX_HEAD_BYTES} bytes", status=431)
        self.places.count("http_refused", reason="malformed" if problem.status == 400 else "head_too_large")
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.cut()  # an answer was begun, and this can't be told any more
            return
        body = msgspec.json.encode(problem.body())
        fields = [
            (b"content-type", TYPE),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        reason = HTTPStatus(problem.status).phrase.encode()
        head = h11.Response(status_code=problem.status, headers=fields, reason=reason)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._part()
        self.transport.close()

    # WebSocket

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the socket over."""
        protocol = self._websocket()
        if protocol is None or (self.spare and not self.places.found(self)):
            self.cut()
            return
        self._forget()
        self.ws_protocol_class = lambda **_: protocol  # type: ignore[assignment]
        if not event.target.startswith(b"/"):
            target = origin_form(event.target)
            event = h11.Request(method=event.method, target=target, headers=event.headers, http_version=event.http_version)
        super().handle_websocket_upgrade(event)

    # Writing

    def pause_writing(self) -> None:
        """The write buffer is full."""
        super().pause_writing()
        self._stalled_bytes = self.transport.get_write_buffer_size()
        if self.stream is not None:
            self.stream.paused()
        else:
            self._leave_unread(max(self._stalled_bytes, self._written))
        self._stalled = self.loop.call_later(STALLED_S, self._check_stalled)

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._leave_unread(0)
        if self.transport.is_closing():
            return
        if self.stream is not None:
            self.stream.resumed_writing()
        elif self._is_between:
            if self.conn.waiting:
                self._expect()
            self.flow.resume_reading()
            self.handle_events()

    def _leave_unread(self, size: int) -> None:
        """So many bytes of answers wait for the client. An event stream counts its own."""
        before, self._unread = self._unread, size
        self.hold(size - before)

    def _check_stalled(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= self._stalled_bytes:
            self.places.count("http_refused", reason="not_reading")
            if self.stream is not None:
                self.stream.end("not_reading")
            self.cut()
            return
        self._stalled_bytes = left
        self._stalled = self.loop.call_later(STALLED_S, self._check_stalled)
