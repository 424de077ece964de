"""Whose word about the client's address is taken: the proxies of `http.trusted_proxies`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mqtt_im.config.peers import parse_address


class TrustedProxies:
    """Says from where a request really came. Without any proxy it is the peer, whatever a header says."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether this is one of them."""
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """The client's address: the last one in `X-Forwarded-For` that is not trusted, where the peer is."""
        if not self._networks or not forwarded_for or not self.trusts(peer):
            return peer
        found = peer
        for text in reversed(forwarded_for.split(",")):
            try:
                found = str(ipaddress.ip_address(text.strip()))
            except ValueError:
                return found  # who wrote that is the one before it
            if not self.trusts(found):
                return found
        return found
