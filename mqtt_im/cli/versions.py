"""Which versions of MQTT a listener speaks: asked with a CONNECT that is answered, and refused, before any login."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from mqtt_im.config import Address

_PATIENCE_S: Final = 2.0
_CONNECTS: Final = {
    "3.1.1": (b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00", 0x02),
    "5": (b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x04\x15\x00\x01x\x00\x00", 0x8C),
}
"""Of each version a CONNECT that is let in nowhere, and the code of its CONNACK.

3.1.1: no client id and clean session 0 (MQTT-3.1.3-8). 5: an authentication method that nobody has (MQTT5-4.12.0-1).
"""

ALL: Final = tuple(_CONNECTS)


def spoken(address: Address, *, tls: bool) -> list[str]:
    """The versions of MQTT that are answered at an address. Raises `OSError` where nothing answers at all."""
    return [version for version in _CONNECTS if _answers(address, version, tls=tls)]


def _answers(address: Address, version: str, *, tls: bool) -> bool:
    sent, code = _CONNECTS[version]
    with socket.create_connection((address.host, address.port), timeout=_PATIENCE_S) as raw:
        try:
            found = _asked(_wrapped(raw) if tls else raw, sent)
        except OSError:
            return False
    return found[:1] == b"\x20" and found[3:4] == bytes([code])


def _wrapped(raw: socket.socket) -> socket.socket:
    """TLS without looking at the certificate, which is looked at elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(raw)


def _asked(connection: socket.socket, sent: bytes) -> bytes:
    connection.sendall(sent)
    found = b""
    while len(found) < 4 and (more := connection.recv(64)):
        found += more
    return found
