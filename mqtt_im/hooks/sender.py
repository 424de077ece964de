"""The HTTP side of webhooks: signed POSTs over kept connections, from a few threads of one receiver.

A redirect is not followed, at most `MAX_ANSWER_BYTES` of an answer are read, and an attempt that takes longer than its
time is cut off, however slowly the receiver goes on sending.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from zlib import crc32

from mqtt_im import __version__

THREADS: Final = 4
DEPTH: Final = 16
"""Deliveries that a sender takes at one time."""
MAX_ANSWER_BYTES: Final = 65_536
LONGEST_RETRY_AFTER_S: Final = 3600
_END_S: Final = 1.0
_LOOK_S: Final = 0.05

log = logging.getLogger(__name__)

Key = TypeVar("Key", int, str)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Key]):
    """One webhook to send. `key` is its row in the outbox, `id` tells the receiver a repeat."""

    key: Key
    event: str
    id: str
    body: bytes
    lane: str
    """Deliveries of one lane are attempted one after the other."""
    attempts: int = 0
    """Those that have failed before."""
    upto: int = 0
    """Of a push: the newest log row that it tells of."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Key]):
    """What became of an attempt: a `status`, or an `error` where there was no answer."""

    delivery: Delivery[Key]
    status: int = 0
    error: str = ""
    retry_after: int = 0
    """Seconds that the receiver has asked for."""

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return 200 <= self.status <= 299

    @property
    def reached(self) -> bool:
        """Whether the receiver works, whatever it thinks of this delivery."""
        return 0 < self.status < 500 and self.status != 429

    @property
    def reason(self) -> str:
        """Why it was not taken, for people."""
        return f"status {self.status}" if self.status else self.error


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of `MQTT-IM-Signature`: HMAC-SHA256 over the timestamp, a full stop and the body."""
    return "sha256=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hex()


class Line(Protocol[Key]):
    """What a thread of a sender makes its attempts with. Used by that thread, and cut by another."""

    def post(self, delivery: Delivery[Key]) -> Outcome[Key]:
        """One attempt. It never raises what the network does."""

    def cut_late(self, now: float) -> None:
        """From another thread: an attempt that has taken too long fails."""

    def cut(self) -> None:
        """From another thread: what waits for the receiver waits no longer."""

    def end(self) -> None:
        """The connection is closed."""


class WebhookLine:
    """One connection to the receiver, which is kept between requests."""

    def __init__(self, url: str, secret: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._secret = secret
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._used = False
        self._deadline = float("inf")
        self._late = False
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_s, context=context
            )
        else:
            self._http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)

    def post(self, delivery: Delivery[Key]) -> Outcome[Key]:
        """One attempt. It never raises what the network does."""
        self._late = False
        self._deadline = time.monotonic() + self._timeout_s
        try:
            return self._post(delivery)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # The last two are what http.client and ssl raise where the socket was cut under them.
            self._close()
            if self._late or isinstance(error, TimeoutError):
                return Outcome(delivery, error=f"no answer within {self._timeout_s:g} s")
            return Outcome(delivery, error=getattr(error, "strerror", None) or str(error) or type(error).__name__)
        finally:
            self._deadline = float("inf")

    def _post(self, delivery: Delivery[Key]) -> Outcome[Key]:
        kept = self._used
        try:
            answer = self._request(delivery)
        except (ConnectionError, http.client.BadStatusLine):
            self._close()
            if not kept or self._late:
                raise
            answer = self._request(delivery)  # the receiver had closed the connection meanwhile
        body = answer.read(MAX_ANSWER_BYTES + 1)
        if len(body) > MAX_ANSWER_BYTES or answer.will_close:
            self._close()
        return Outcome(delivery, answer.status, retry_after=_seconds(answer.getheader("Retry-After")))

    def _request(self, delivery: Delivery[Key]) -> http.client.HTTPResponse:
        timestamp = str(int(time.time()))
        if self._http.sock is None:
            self._http.connect()
        self._used = True
        self._http.request(
            "POST",
            self._target,
            delivery.body,
            {
                "Content-Type": "application/json",
                "User-Agent": f"mqtt-im/{__version__}",
                "MQTT-IM-Event": delivery.event,
                "MQTT-IM-Id": delivery.id,
                "MQTT-IM-Timestamp": timestamp,
                "MQTT-IM-Signature": signature(self._secret, timestamp, delivery.body),
            },
        )
        return self._http.getresponse()

    def _close(self) -> None:
        self._used = False
        self._http.close()

    def cut_late(self, now: float) -> None:
        """From another thread: an attempt that has taken too long fails."""
        if now > self._deadline:
            self._late = True
            self.cut()

    def cut(self) -> None:
        """From another thread: what waits for the receiver waits no longer."""
        connected = self._http.sock
        if connected is not None:
            with contextlib.suppress(OSError):  # it is closed already
                # Not the method of an SSL socket, which would take its state away under the reading thread.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def end(self) -> None:
        """The connection is closed."""
        self._close()


def _seconds(text: str | None) -> int:
    """`Retry-After` in seconds (RFC 9110 §10.2.3); its other form, a date, counts as none."""
    if text is None or not text.strip().isascii() or not text.strip().isdigit():
        return 0
    return int(text) if len(text) < 9 and int(text) < LONGEST_RETRY_AFTER_S else LONGEST_RETRY_AFTER_S


class Sender(Generic[Key]):
    """The threads of one receiver, each with a line from `make_line`. `report` gets each outcome, on one of these threads.

    No attempt begins while `go` says no.
    """

    def __init__(
        self,
        name: str,
        make_line: Callable[[], Line[Key]],
        report: Callable[[Outcome[Key]], None],
        go: Callable[[], bool] = lambda: True,
        *,
        lanes: bool = True,
    ) -> None:
        """Without `lanes` every delivery is for the thread that has nothing to do, and no thread is waited for by others."""
        self._go = go
        self._report: Callable[[Outcome[Key]], None] = report
        self._lines: list[Line[Key]] = [make_line() for _ in range(THREADS)]
        queues: list[SimpleQueue[Delivery[Key] | None]] = [SimpleQueue() for _ in self._lines]
        self._queues: list[SimpleQueue[Delivery[Key] | None]] = queues if lanes else [queues[0]] * THREADS
        self._threads = [
            threading.Thread(target=self._run, args=parts, name=f"{name}-{number}", daemon=True)
            for number, parts in enumerate(zip(self._lines, self._queues, strict=True))
        ]
        self._ending = False
        for thread in self._threads:
            thread.start()

    def send(self, delivery: Delivery[Key]) -> None:
        """The delivery is attempted soon."""
        self._queues[crc32(delivery.lane.encode()) % THREADS].put(delivery)

    def cut_late(self) -> None:
        """Attempts that have taken too long fail. Call it a few times a second."""
        now = time.monotonic()
        for line in self._lines:
            line.cut_late(now)

    def end(self) -> None:
        """No attempt goes on: those under way had a moment to finish, and what was not taken stays in the outbox."""
        self._ending = True
        for queue in self._queues:
            queue.put(None)
        if not self._gone():
            for line in self._lines:
                line.cut()
            self._gone()

    def _gone(self) -> bool:
        deadline = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, line: Line[Key], queue: SimpleQueue[Delivery[Key] | None]) -> None:
        while (delivery := queue.get()) is not None:
            while not self._ending and not self._go():
                time.sleep(_LOOK_S)
            if self._ending:
                break
            try:
                outcome = line.post(delivery)
            except Exception:
                log.exception("webhooks: an attempt could not be made")
                outcome = Outcome(delivery, error="a fault of the server")
            self._report(outcome)
        line.end()
