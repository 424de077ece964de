"""Who is at the other end of a socket."""

from __future__ import annotations

import pytest

from mqtt_im.config.peers import is_loopback, network_of
from mqtt_im.config.proxies import TrustedProxies


def test_one_party_holds_an_address_of_ipv4_or_a_64_of_ipv6() -> None:
    assert network_of("192.0.2.1") == network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:0:1::1") == network_of("2001:db8:0:1:ffff::2") == "2001:db8:0:1::/64"
    assert network_of("2001:db8:0:2::1") != network_of("2001:db8:0:1::1")
    assert network_of("") == ""
    assert is_loopback("127.9.9.9")
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("nonsense")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("198.51.100.9", ["192.0.2.7"], "198.51.100.9"),  # not trusted: speaks for itself
        ("127.0.0.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),  # what stands before it, the client has made up
        ("127.0.0.1", ["192.0.2.7, 10.0.0.5"], "192.0.2.7"),  # two proxies of ours
        ("127.0.0.1", ["6.6.6.6", "192.0.2.7, 10.0.0.5"], "192.0.2.7"),  # the header may stand there twice
        ("127.0.0.1", ["10.0.0.6, 10.0.0.5"], "10.0.0.6"),
        ("127.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["192.0.2.7, unknown"], "127.0.0.1"),
    ],
)
def test_the_last_one_that_is_not_trusted_is_the_client(peer: str, forwarded_for: list[str], client: str) -> None:
    assert TrustedProxies(["127.0.0.1", "10.0.0.0/8"]).client(peer, ",".join(forwarded_for)) == client
