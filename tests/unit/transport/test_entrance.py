"""What comes before MQTT: PROXY headers, handshakes, and how they count."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from pathlib import Path

import pytest
import trustme

from tests.support import packets
from tests.unit.transport.harness import Client, Server, on_loop
from tests.unit.transport.test_tls import trusting, write

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def header(address: str, *, command: int = 0x21, more: bytes = b"") -> bytes:
    """A PROXY header, version 2, of HAProxy's specification."""
    ip = ipaddress.ip_address(address)
    family = 0x11 if ip.version == 4 else 0x21
    rest = ip.packed + ip.packed + struct.pack("!HH", 4711, 1883) + more
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(rest)) + rest


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
@on_loop
async def test_a_proxy_tells_the_clients_address(tmp_path: Path, address: str, piece: int) -> None:
    async with Server(tmp_path, proxy_protocol=True) as server:
        client = await server.open()
        # A field that we don't know (TLV) follows the addresses, and MQTT follows at once.
        stream = header(address, more=b"\xee\x00\x03abc") + packets.connect("phone", username="alice")
        for at in range(0, len(stream), piece):
            client.send(stream[at : at + piece])
            await client.writer.drain()
        await client.expect(packets.CONNACK)
        (connection,) = server.hub.live.values()
        assert connection.address == address
        await client.silent()


@on_loop
async def test_a_proxy_may_speak_for_itself(tmp_path: Path) -> None:
    async with Server(tmp_path, proxy_protocol=True) as server:
        for start in (header("192.0.2.7", command=0x20), SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x00\x00\x00"):
            client = await server.open()
            client.send(start + packets.connect("phone", username="alice"))
            await client.expect(packets.CONNACK)
            (connection,) = server.hub.live.values()
            assert connection.address == "127.0.0.1"


@pytest.mark.parametrize(
    "start",
    [
        packets.connect("a-long-enough-name", username="alice"),
        b"PROXY TCP4 192.0.2.7 192.0.2.7 4711 1883\r\n",
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
@on_loop
async def test_whoever_has_no_header_is_cut(tmp_path: Path, start: bytes) -> None:
    async with Server(tmp_path, proxy_protocol=True) as server:
        client = await server.open()
        client.send(start)
        assert await client.gone() == []
        await server.counted("connects_refused:proxy_protocol")


@on_loop
async def test_limits_for_an_address_are_for_the_clients(tmp_path: Path) -> None:
    async with Server(tmp_path, proxy_protocol=True, limits={"max_connections_per_address": 1}) as server:

        async def come(address: str, device: str) -> Client:
            client = await server.open()
            client.send(header(address) + packets.connect(device, username="alice"))
            return client

        first = await come("192.0.2.7", "a")
        await first.expect(packets.CONNACK)
        await (await come("192.0.2.8", "b")).expect(packets.CONNACK)
        assert await (await come("192.0.2.7", "c")).gone() == []
        await server.counted("connects_refused:max_connections_per_address")
        await first.disconnect()
        await (await come("192.0.2.7", "c")).expect(packets.CONNACK)


@on_loop
async def test_tls_follows_the_header(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with Server(tmp_path, tls=write(tmp_path, authority), proxy_protocol=True) as server:
        raw = socket.create_connection(server.transport.addresses["mqtts"])
        raw.sendall(header("192.0.2.7"))
        raw.setblocking(False)
        client = Client(*await asyncio.open_connection(sock=raw, ssl=trusting(authority), server_hostname="localhost"))
        client.send(packets.connect("phone", username="alice"))
        await client.expect(packets.CONNACK)
        (connection,) = server.hub.live.values()
        assert connection.address == "192.0.2.7"
        await client.disconnect()


@on_loop
async def test_handshakes_count_against_the_limits_and_their_time_runs(tmp_path: Path) -> None:
    limits = {"max_connections_per_address": 2, "connect_timeout_s": 0.2}
    async with Server(tmp_path, tls=write(tmp_path, trustme.CA()), limits=limits) as server:
        silent = [await server.open("mqtts") for _ in range(2)]
        third = await server.open("mqtts")
        assert await third.gone() == []
        await server.counted("connects_refused:max_connections_per_address")
        for client in silent:
            assert await client.gone() == []
        await server.handler.until(lambda: not server.hub.sockets and not server.hub.handshakes)


@on_loop
async def test_no_handshake_is_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mqtt_im.mqtt")
    async with Server(tmp_path, tls=write(tmp_path, trustme.CA())) as server:
        client = await server.open("mqtts")
        client.send(packets.connect("phone", username="alice"))
        await client.reader.read()
        await client.close()
        await server.counted("connects_refused:tls")
        assert "a connection from 127.0.0.1 is refused: no TLS" in caplog.text


@on_loop
async def test_a_stop_does_not_wait_for_handshakes(tmp_path: Path) -> None:
    async with Server(tmp_path, tls=write(tmp_path, trustme.CA()), limits={"connect_timeout_s": 600}) as server:
        await server.open("mqtts")
        await server.counted("connections_accepted:mqtts")
