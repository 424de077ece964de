"""A receiver of webhooks on a loopback port: records what it is sent, and answers as a test says."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.raw import PATIENCE_S

SECRET = "a secret of the tests"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Tells requests of one connection from those of another."""

    @property
    def data(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def signed(self) -> bool:
        """As docs/webhooks.md says it is verified."""
        timestamp = self.headers["MQTT-IM-Timestamp"]
        expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["MQTT-IM-Signature"], f"sha256={expected}")


class Receiver:
    """`statuses` holds the answers to the next requests; then every one is answered with 204. While `hold` is set none is."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Webhook] = []
        self.statuses: deque[int] = deque()
        self.headers: dict[str, str] = {}
        """Added to every answer."""
        self.answer = b""
        self.hold = threading.Event()
        self.connections: list[socket.socket] = []
        self._changed = threading.Condition()
        self._server = _HttpServer(("127.0.0.1", port), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?for=tests"

    def take(self, webhook: Webhook) -> int:
        with self._changed:
            self.received.append(webhook)
            self._changed.notify_all()
            status = self.statuses.popleft() if self.statuses else 204
        while self.hold.is_set():
            time.sleep(0.01)
        return status

    def until(self, probe: Callable[[list[Webhook]], Any], what: str) -> Any:
        """The first true value of `probe`, which is shown all that was received so far."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not (found := probe(self.received)):
                assert self._changed.wait(max(0.0, deadline - time.monotonic())), f"no {what} in {self.received}"
        return found

    def event(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first webhook of this event with these fields."""

        def probe(received: list[Webhook]) -> dict[str, Any] | None:
            found = (webhook.data for webhook in received)
            return next((data for data in found if data["event"] == event and data.items() >= fields.items()), None)

        data = self.until(probe, f"{event} {fields}")
        assert isinstance(data, dict)
        return data

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """All such webhooks so far."""
        found = [webhook.data for webhook in self.received]
        return [data for data in found if data["event"] == event and data.items() >= fields.items()]

    def close(self) -> None:
        self.hold.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A server that was killed leaves its connections broken."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            receiver.connections.append(self.connection)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            webhook = Webhook(self.command, self.path, dict(self.headers.items()), body, self.client_address[1])
            self.send_response(receiver.take(webhook))
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            if receiver.answer:
                self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        do_GET = do_POST  # noqa: N815 - what a followed redirect would become

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
