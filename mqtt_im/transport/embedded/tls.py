"""TLS for the listener of its own: certificates that can be renewed, and the user that a client's certificate names."""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from mqtt_im.config import TlsConfig


class _Transport(Protocol):
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def context(config: TlsConfig) -> ssl.SSLContext:
    """A server's context. Raises `OSError` (of which `ssl.SSLError` is one) where a file is missing or wrong, naming it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    load(made, config)
    if config.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def load(into: ssl.SSLContext, config: TlsConfig) -> None:
    """Read the files into a context: handshakes from now on use them, connections that are there stay as they are."""
    try:
        into.load_cert_chain(config.cert, config.key)
    except (OSError, ValueError) as error:
        raise OSError(f"mqtt.tls.cert {config.cert!r} and mqtt.tls.key {config.key!r} cannot be used: {error}") from error
    if config.client_ca:
        try:
            into.load_verify_locations(config.client_ca)
        except (OSError, ValueError) as error:
            raise OSError(f"mqtt.tls.client_ca {config.client_ca!r} cannot be used: {error}") from error


def renew(live: ssl.SSLContext, config: TlsConfig) -> None:
    """Read the files again. Raises `OSError`, with the live context untouched, where they cannot be used."""
    context(config)
    load(live, config)


def certificate_user(transport: _Transport) -> str | None:
    """The CN of the client's verified certificate; None where it showed none."""
    certificate = transport.get_extra_info("peercert")
    for attributes in (certificate or {}).get("subject", ()):
        for name, value in attributes:
            if name == "commonName":
                return str(value)
    return None
