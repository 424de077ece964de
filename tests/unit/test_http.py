"""Health and metrics over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket

import pytest

from mqtt_im.config import Address, Config, HttpConfig
from mqtt_im.http import HttpServer
from mqtt_im.metrics import Metrics


def at(bind: str) -> Config:
    return Config(http=HttpConfig(bind=bind))


def get(address: Address, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
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


def test_a_taken_port_is_an_os_error() -> None:
    async def ready() -> dict[str, str]:
        return {}

    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = HttpServer(at(f"127.0.0.1:{taken.getsockname()[1]}"), ready, Metrics())
        with pytest.raises(OSError):
            asyncio.run(server.start())
