"""Who is at the other end of a socket: addresses as parties."""

from __future__ import annotations

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def network_of(address: str) -> str:
    """What one party holds: an IPv4 address, or the /64 of an IPv6 one."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


def is_loopback(address: str) -> bool:
    """Whether it is this machine's own."""
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback


def parse_address(text: str) -> _Address | None:
    """The address, an IPv4 one that is mapped into IPv6 as such; None where it is none."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped) or parsed
