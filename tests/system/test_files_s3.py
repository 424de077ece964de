"""Files in an S3 store: a real server of the protocol, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import boto3
import pytest

from mqtt_im.testing import ServerProcess
from tests.support.raw import eventually
from tests.support.web import Web

CONTENT = os.urandom(300_000)
BUCKET = "messages"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: not _refuses(port), "the S3 server", 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def keys(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Lists what is in the bucket."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    yield lambda: [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]
    client.close()


def test_contents_lie_in_the_bucket(endpoint: str, keys: Callable[[], list[str]]) -> None:
    config = {"files.url": "s3://messages/chat", "files.endpoint": endpoint}
    with ServerProcess(config) as server, Web(server.http_port) as alice, Web(server.http_port) as bob:
        alice.login("alice")
        bob.login("bob")
        file = alice.upload(CONTENT, "f.bin", "image/png")["id"]
        assert keys() == [f"chat/{file}"]
        sent = alice.must("send", to="bob", body="", files=[file])
        assert bob.file(file).body == CONTENT
        part = bob.file(file, Range="bytes=100000-100099")
        assert (part.status, part.body) == (206, CONTENT[100_000:100_100])
        alice.must("recall", conv=sent["conv"], seq=1)
        assert bob.file(file).status == 404
        eventually(lambda: not keys(), "the bucket")


def test_a_store_that_does_not_answer_is_told(endpoint: str, keys: Callable[[], list[str]]) -> None:
    with ServerProcess({"files.url": "s3://nowhere/x", "files.endpoint": endpoint}) as server, Web(server.http_port) as alice:
        answer = alice.login("alice").uploaded(b"x", "f", "text/plain")
        assert (answer.status, answer.code) == (503, "unavailable")
        assert "retry-after" in answer.headers
        assert alice.must("send", to="bob", body="messages go on")["seq"] == 1
