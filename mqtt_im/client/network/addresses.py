"""Where a server is, as a URL."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_DEFAULT_PATH: Final = "/mqtt"


@dataclass(frozen=True, slots=True)
class Address:
    """One way to a server."""

    host: str
    port: int
    tls: bool
    path: str | None
    """Of the WebSocket; None for plain TCP."""

    def __str__(self) -> str:
        scheme = ("wss" if self.tls else "ws") if self.path is not None else ("mqtts" if self.tls else "mqtt")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{self.path or ''}"


def parsed(urls: str | Sequence[str]) -> tuple[Address, ...]:
    """The addresses of one URL or several: `mqtt://`, `mqtts://`, `ws://`, `wss://`. Raises `ValueError`."""
    given = (urls,) if isinstance(urls, str) else tuple(urls)
    if not given:
        raise ValueError("no address of a server was given")
    return tuple(_parsed(url) for url in given)


def _parsed(url: str) -> Address:
    try:
        parts = urlsplit(url)
        given = parts.port
    except ValueError as wrong:
        raise ValueError(f"{url!r} is no address of a server: {wrong}") from None
    if parts.scheme not in _PORTS or not parts.hostname or given == 0:
        raise ValueError(
            f"{url!r} is no address of a server: expected mqtt://, mqtts://, ws:// or wss://, a host and perhaps a port"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("user and password do not belong into the address; give them as user= and password=")
    port = given or _PORTS[parts.scheme]
    path = None
    if parts.scheme in ("ws", "wss"):
        path = (parts.path if parts.path not in ("", "/") else _DEFAULT_PATH) + (f"?{parts.query}" if parts.query else "")
    return Address(parts.hostname, port, parts.scheme in ("mqtts", "wss"), path)


def context_for(address: Address, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """The TLS context to use: the app's, or the system's certificates."""
    if not address.tls:
        return None
    return tls if tls is not None else ssl.create_default_context()
