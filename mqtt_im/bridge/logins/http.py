"""`auth.mode = "http"`: another system is asked about each login, in the form of EMQX's HTTP authenticator.

What it does not allow is refused, and so is everything while it does not answer. Nobody waits for it but who logs in, and nobody
for what it does not answer about logins from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http.client
import secrets
import socket
import ssl
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from mqtt_im.config import HttpLoginConfig
from mqtt_im.config.peers import is_loopback, network_of
from mqtt_im.shares import Bounds

from .shared_places import SharedPlaces

MAX_AT_ONCE: Final = 64
MAX_ANSWER_BYTES: Final = 65_536
MAX_REMEMBERED: Final = 100_000
"""Logins, of which each takes about 250 bytes."""


class NoAnswer(Exception):
    """The other system has not said yes or no in time."""


class HttpLogins:
    """Asks, and remembers who was allowed for as long as the configuration says."""

    def __init__(self, config: HttpLoginConfig, bounds: Bounds | None = None) -> None:
        self._config = config
        self._bounds = bounds or Bounds()
        self._threads = ThreadPoolExecutor(MAX_AT_ONCE, "http-login")
        self._places = SharedPlaces(MAX_AT_ONCE)
        self._key = secrets.token_bytes(32)
        self._allowed: OrderedDict[bytes, float] = OrderedDict()

    def close(self) -> None:
        """Let go of the threads; none is waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def allows(self, user: str, password: str | None, client_id: str, address: str, protocol: str) -> bool:
        """Whether this login is allowed. Raises `NoAnswer`."""
        digest = hmac.digest(self._key, user.encode() + b"\0" + (password or "").encode(errors="replace"), "sha256")
        if self._allowed.get(digest, 0.0) > time.monotonic():
            return True
        question = {
            "username": user,
            "password": password,
            "clientid": client_id,
            "peerhost": address,
            "protocol": protocol,
        }
        attempt = _Attempt(self._config, msgspec.json.encode(question))
        try:
            async with asyncio.timeout(self._config.timeout_s), self._places.place(_party(user, address)):
                allowed = await asyncio.get_running_loop().run_in_executor(self._threads, attempt.run)
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._config.timeout_s:g} s") from None
        finally:
            attempt.cut()
        if allowed and self._config.cache_s:
            self._allowed[digest] = time.monotonic() + self._config.cache_s
            self._allowed.move_to_end(digest)
            if len(self._allowed) > self._bounds.of(MAX_REMEMBERED):
                self._allowed.popitem(last=False)
        return allowed


class _Attempt:
    """One question, on a thread; `cut` ends it from outside, however slowly the other side goes on."""

    def __init__(self, config: HttpLoginConfig, body: bytes) -> None:
        parts = urlsplit(config.url)
        self._path = parts.path or "/"
        if parts.query:
            self._path += f"?{parts.query}"
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **config.headers}
        self._body = body
        host = parts.hostname or ""
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, parts.port, timeout=config.timeout_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=config.timeout_s)

    def run(self) -> bool:
        """Whether it is allowed. Raises `NoAnswer`."""
        try:
            self._connection.request("POST", self._path, self._body, self._headers)
            response = self._connection.getresponse()
            return _verdict(response.status, response.read(MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(str(error) or type(error).__name__) from None
        finally:
            self._connection.close()

    def cut(self) -> None:
        """End it now."""
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _party(user: str, address: str) -> str:
    """Who shares places with whom: all behind one address, but what comes from this machine comes from a proxy, for everybody."""
    return user if is_loopback(address) else network_of(address)


def _verdict(status: int, body: bytes) -> bool:
    if status == 204:
        return True
    if 400 <= status < 500:
        return False
    if status == 200:
        try:
            answer: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise NoAnswer("the answer is no JSON") from None
        result = answer.get("result") if isinstance(answer, dict) else None
        if result in ("allow", "deny", "ignore"):
            return bool(result == "allow")
        raise NoAnswer("the answer has no result of allow, deny or ignore")
    raise NoAnswer(f"status {status}")
