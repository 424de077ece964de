"""Health and metrics over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from mqtt_im.config import Address, AuthConfig, Config, HttpConfig, HttpTlsConfig
from mqtt_im.http import HttpServer
from mqtt_im.http.app import site
from mqtt_im.http.openapi import document
from mqtt_im.http.services import Desk
from mqtt_im.metrics import Metrics
from mqtt_im.protocol.errors import StoreError


def at(bind: str) -> Config:
    return Config(http=HttpConfig(bind=bind))


def get(address: Address, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_health_and_metrics() -> None:
    parts = {"store": "ok"}
    metrics = Metrics()
    metrics.count("plain_messages")

    async def ready() -> dict[str, str]:
        return parts

    async def scenario() -> None:
        server = HttpServer(at("127.0.0.1:0"), ready, metrics)
        await server.start()

        async def ask(path: str) -> tuple[int, str]:
            return await asyncio.to_thread(get, server.addresses["http"], path)

        try:
            assert await ask("/health/live") == (200, '{"status":"ok"}')
            assert (await ask("/health/ready"))[0] == 200
            parts["store"] = "database or disk is full"
            status, body = await ask("/health/ready")
            assert (status, json.loads(body)["parts"]) == (503, {"store": "database or disk is full"})
            status, body = await ask("/metrics")
            assert (status, "mqtt_im_plain_messages_total 1.0" in body) == (200, True)
            assert (await ask("/nothing"))[0] == 404
        finally:
            await server.stop()
        with pytest.raises(OSError):
            await ask("/health/live")

    asyncio.run(scenario())


def test_what_fails_again_and_again_is_not_logged_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """Accounts on a broken disk fail each request; whoever makes them can't fill the log."""

    async def ready() -> dict[str, str]:
        raise StoreError("the accounts can't be read: disk I/O error")

    async def scenario() -> None:
        metrics = Metrics()
        server = HttpServer(at("127.0.0.1:0"), ready, metrics)
        await server.start()
        try:
            for _ in range(50):
                status, body = await asyncio.to_thread(get, server.addresses["http"], "/health/ready")
                assert (status, json.loads(body)["code"]) == (503, "unavailable")
        finally:
            await server.stop()
        assert b"mqtt_im_log_lines_suppressed_total 30.0" in metrics.render()

    asyncio.run(scenario())
    lines = [record for record in caplog.records if record.name == "mqtt_im.http.app"]
    assert len(lines) == 20
    assert "disk I/O error" in lines[0].__dict__["reason"]


def test_a_taken_port_is_an_os_error() -> None:
    async def ready() -> dict[str, str]:
        return {}

    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = HttpServer(at(f"127.0.0.1:{taken.getsockname()[1]}"), ready, Metrics())
        with pytest.raises(OSError):
            asyncio.run(server.start())


def test_a_renewed_certificate_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """A key of another type too: nothing of the old one is offered any more."""
    authority = trustme.CA()
    files = HttpTlsConfig(bind="127.0.0.1:0", cert=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))

    def issue(key_type: trustme.KeyType) -> None:
        issued = authority.issue_cert("localhost", key_type=key_type)
        issued.private_key_pem.write_to_path(files.key)
        issued.cert_chain_pems[0].write_to_path(files.cert)

    def break_key() -> None:
        Path(files.key).write_text("nonsense")

    async def ready() -> dict[str, str]:
        return {}

    async def scenario() -> None:
        issue(trustme.KeyType.ECDSA)
        server = HttpServer(Config(http=HttpConfig(bind="", tls=files)), ready, Metrics())
        await server.start()

        def shake(ciphers: str) -> None:
            context = ssl.create_default_context()
            authority.configure_trust(context)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            with socket.create_connection(server.addresses["https"]) as raw:
                context.wrap_socket(raw, server_hostname="localhost").close()

        try:
            await asyncio.to_thread(shake, "ECDSA")
            issue(trustme.KeyType.RSA)
            swap = server.renewed(files)
            await asyncio.to_thread(shake, "ECDSA")
            swap()
            await asyncio.to_thread(shake, "aRSA")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(shake, "ECDSA")
            break_key()
            with pytest.raises(OSError, match=r"key\.pem"):
                server.renewed(files)
            await asyncio.to_thread(shake, "aRSA")
        finally:
            await server.stop()

    asyncio.run(scenario())


def test_every_path_is_described() -> None:
    """Each call of the API stands in openapi.json, with its methods; but not the description itself."""

    async def ready() -> dict[str, str]:
        return {}

    whole: Any = site(Config(auth=AuthConfig(admin_token="a token")), Desk(), ready, Metrics())
    described = {re.sub(r"\{\w+\}", "{}", path): set(calls) for path, calls in document()["paths"].items()}
    for route in whole._router.routes:
        path = re.sub(r"\{\w+\}", "{}", route.path)
        if path.startswith("/api/v1/") and path != "/api/v1/openapi.json":
            methods = {method.lower() for method in route.methods or {"get"}} - {"head"}
            assert methods <= described[path], path
