"""TLS: its own listener, client certificates that name the user, certificates that are renewed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from mqtt_im.config import TlsConfig
from tests.support import packets
from tests.support.authority import revocations
from tests.unit.transport.harness import Client, Server, on_loop


def write(
    folder: Path, authority: trustme.CA, name: str = "localhost", key_type: trustme.KeyType = trustme.KeyType.ECDSA
) -> TlsConfig:
    """A server's files, and a client authority."""
    certificate = authority.issue_cert(name, key_type=key_type)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return TlsConfig(bind="127.0.0.1:0", cert=str(folder / "cert.pem"), key=str(folder / "key.pem"))


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def connected(server: Server, context: ssl.SSLContext, name: str = "localhost") -> Client:
    client = await server.open("mqtts", ssl=context, server_hostname=name)
    client.send(packets.connect("phone", username="alice"))
    await client.expect(packets.CONNACK)
    return client


@on_loop
async def test_the_same_protocol_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with Server(tmp_path, tls=write(tmp_path, authority)) as server:
        client = await connected(server, trusting(authority))
        payload = b"x" * 100_000
        client.send(packets.publish("im/v1/alice/phone/up", payload, packet_id=1))
        await client.expect(packets.PUBACK, 1)
        server.handler.links[0].publish(b"im/v1/alice/down", payload, 3)
        assert (await client.message()).payload == payload
        client.send(packets.packet(packets.DISCONNECT))
        assert await client.gone() == []
        assert server.counts["connections_accepted:mqtts"] == 1


@on_loop
async def test_client_certificates_name_the_user(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    config = write(tmp_path, authority)
    async with Server(
        tmp_path, tls=TlsConfig(bind=config.bind, cert=config.cert, key=config.key, client_ca=str(tmp_path / "ca.pem"))
    ) as server:
        context = trusting(authority)
        authority.issue_cert(common_name="carol").configure_cert(context)
        client = await server.open("mqtts", ssl=context, server_hostname="localhost")
        client.send(packets.connect("phone"))
        await client.expect(packets.CONNACK)
        assert server.handler.links[0].user == "carol"
        for refused in (trusting(authority), trusting(authority)):
            if refused is not context:
                stranger.issue_cert(common_name="carol").configure_cert(refused)
            with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
                await connected(server, refused)


@on_loop
async def test_certificates_are_renewed_and_connections_stay(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    async with Server(tmp_path, tls=write(tmp_path, old)) as server:
        before = await connected(server, trusting(old))
        config = write(tmp_path, new)
        server.transport.renewed(config)()
        await before.silent()
        with pytest.raises(ssl.SSLError):
            await connected(server, trusting(old))
        await connected(server, trusting(new))
        (tmp_path / "cert.pem").write_text("nonsense")
        with pytest.raises(OSError, match=r"cert\.pem"):
            server.transport.renewed(config)()
        await connected(server, trusting(new))


def showing(authority: trustme.CA, leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = trusting(authority)
    leaf.configure_cert(context)
    return context


@on_loop
async def test_a_key_of_another_type_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with Server(tmp_path, tls=write(tmp_path, authority)) as server:
        await connected(server, trusting(authority))
        server.transport.renewed(write(tmp_path, authority, key_type=trustme.KeyType.RSA))()
        for only in ("ECDSA", "aRSA"):
            context = trusting(authority)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(only)
            if only == "aRSA":
                await connected(server, context)
            else:  # the old key is not beside the new one
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await connected(server, context)


@on_loop
async def test_a_replaced_authority_lets_in_whom_it_signs_and_nobody_else(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    config = write(tmp_path, old)
    config = TlsConfig(bind=config.bind, cert=config.cert, key=config.key, client_ca=str(tmp_path / "ca.pem"))
    async with Server(tmp_path, tls=config) as server:
        before, after = (authority.issue_cert(common_name="carol") for authority in (old, new))
        await connected(server, showing(old, before))
        new.cert_pem.write_to_path(tmp_path / "ca.pem")
        server.transport.renewed(config)()
        await connected(server, showing(old, after))
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            await connected(server, showing(old, before))


@on_loop
async def test_revoked_certificates_are_refused_after_a_reload_too(tmp_path: Path) -> None:
    authority = trustme.CA()
    config, lost, kept = write(tmp_path, authority), *(authority.issue_cert(common_name=name) for name in ("carol", "dave"))
    (tmp_path / "crl.pem").write_bytes(revocations(authority))
    files = {"client_ca": str(tmp_path / "ca.pem"), "crl": str(tmp_path / "crl.pem")}
    config = TlsConfig(bind=config.bind, cert=config.cert, key=config.key, **files)
    async with Server(tmp_path, tls=config) as server:
        await connected(server, showing(authority, lost))
        (tmp_path / "crl.pem").write_bytes(revocations(authority, lost))
        server.transport.renewed(config)()
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            await connected(server, showing(authority, lost))
        await connected(server, showing(authority, kept))
        (tmp_path / "crl.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
        with pytest.raises(OSError, match="no revocation list"):
            server.transport.renewed(config)()
        await connected(server, showing(authority, kept))


@on_loop
async def test_a_session_is_resumed_by_its_ticket(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with Server(tmp_path, tls=write(tmp_path, authority)) as server:
        context = trusting(authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        host, port = server.transport.addresses["mqtts"]

        def visit(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            with (
                socket.create_connection((host, port)) as raw,
                context.wrap_socket(raw, server_hostname="localhost", session=session) as wrapped,
            ):
                return wrapped.session, wrapped.session_reused

        session, reused = await asyncio.to_thread(visit, None)
        assert session is not None
        assert not reused
        assert (await asyncio.to_thread(visit, session))[1]


@pytest.mark.parametrize("missing", ["cert", "client_ca"])
@on_loop
async def test_files_that_cannot_be_used_are_named(tmp_path: Path, missing: str) -> None:
    config = write(tmp_path, trustme.CA())
    paths = {"cert": config.cert, "client_ca": str(tmp_path / "ca.pem"), missing: str(tmp_path / "none.pem")}
    server = Server(tmp_path, tls=TlsConfig(bind=config.bind, key=config.key, **paths))
    with pytest.raises(OSError, match=r"none\.pem"):
        await server.transport.start()
