"""TLS for the listener of its own: certificates that can be renewed, and the user that a client's certificate names."""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from mqtt_im.config import TlsConfig
from mqtt_im.pacing import Paced


class _Transport(Protocol):
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def context(config: TlsConfig) -> ssl.SSLContext:
    """A server's context from the files as they are now. A reload makes a new one and swaps it, so nothing of the old stays.

    Raises `OSError` (of which `ssl.SSLError` is one) where a file is missing or wrong, naming it.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.sslobject_class = Paced
    try:
        made.load_cert_chain(config.cert, config.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise OSError(f"mqtt.tls.cert {config.cert!r} and mqtt.tls.key {config.key!r} cannot be used: {error}") from error
    if config.client_ca:
        _load(made, "client_ca", config.client_ca)
        made.verify_mode = ssl.CERT_REQUIRED
        if config.crl:
            _load(made, "crl", config.crl)
            if not made.cert_store_stats()["crl"]:
                raise OSError(f"mqtt.tls.crl {config.crl!r} cannot be used: there is no revocation list in it")
            made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return made


def _no_password() -> str:
    """An encrypted key must not make a server ask on its terminal."""
    raise ValueError("the key is encrypted; a server can't ask for its password")


def _load(into: ssl.SSLContext, key: str, file: str) -> None:
    try:
        into.load_verify_locations(file)
    except (OSError, ValueError) as error:
        raise OSError(f"mqtt.tls.{key} {file!r} cannot be used: {error}") from error


def certificate_user(transport: _Transport) -> str | None:
    """The CN of the client's verified certificate; None where it showed none."""
    certificate = transport.get_extra_info("peercert")
    for attributes in (certificate or {}).get("subject", ()):
        for name, value in attributes:
            if name == "commonName":
                return str(value)
    return None
