"""Where a listener stands: the `host:port` of a `bind` key."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

_LOCALHOST = {"localhost": "127.0.0.1"}


class Address(NamedTuple):
    """A host (without brackets) and a port; port 0 stands for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def overlaps(self, other: Address) -> bool:
        """Whether the two can't be listened on at the same time: they are the same, or one is part of the other."""
        if self.port != other.port:
            return False
        mine, theirs = (_LOCALHOST.get(host, host) for host in (self.host, other.host))
        if mine == theirs or "::" in (mine, theirs):  # "::" takes IPv4's addresses too
            return True
        return "0.0.0.0" in (mine, theirs) and ":" not in mine + theirs  # noqa: S104 - to be compared with

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(text: str) -> Address | None:
    """Read `host:port` or `[v6]:port`; None for the empty text, which switches a listener off. Raises `ValueError`."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65_535:
        raise ValueError(f'expected "host:port" with a port of 0 to 65535, got {text!r}')
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{host} is no IPv6 address") from None
    if ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    if not host:
        raise ValueError(f'a host is missing before the port; "0.0.0.0:{port}" is every IPv4 address of this machine')
    if any(character.isspace() or character in "/[]" for character in host):
        raise ValueError(f"{host!r} is no host name or address")
    return Address(host, int(port))


def bind_problem(address: Address) -> str | None:
    """Why a server could not listen there; None where it could."""
    try:
        family, kind, protocol, _, sockaddr = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(sockaddr)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None
