"""Files through the client library: uploaded, sent, and downloaded whole by who may read the message."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtt_im.client import Client, ClientError, Offline, RequestFailed
from mqtt_im.testing import ServerProcess
from tests.support.clients import PATIENCE_S, run, take
from tests.system.conftest import Name


def test_a_file_goes_from_one_app_to_the_other(server: ServerProcess, tmp_path: Path, name: Name) -> None:
    async def main() -> None:
        url, http = f"mqtt://127.0.0.1:{server.mqtt_port}", f"http://127.0.0.1:{server.http_port}"
        source, target = tmp_path / "roof.png", tmp_path / "got.png"
        source.write_bytes(b"\x89PNG" + bytes(range(256)) * 2_000)
        async with (
            Client(url, user=name("alice"), http=http) as a,
            Client(url, user=name("bob"), http=http) as b,
            Client(url, user=name("eve"), http=http) as e,
        ):
            sent = await a.send(b.user, "look", files=[await a.upload(source)])
            await sent.sent(PATIENCE_S)
            ((found,),) = [message.files for message in await take(b, 1)]
            assert (found["name"], found["type"], found["size"]) == ("roof.png", "image/png", source.stat().st_size)
            await b.download(found["id"], target)
            assert target.read_bytes() == source.read_bytes()
            assert not (tmp_path / "got.png.part").exists()
            with pytest.raises(RequestFailed) as caught:
                await e.download(found["id"], tmp_path / "stolen.png")
            assert caught.value.code == "not_found"
            assert not (tmp_path / "stolen.png").exists()
            with pytest.raises(FileNotFoundError):
                await a.upload(tmp_path / "nothing")

    run(main)


def test_where_there_is_no_http(server: ServerProcess, tmp_path: Path, name: Name) -> None:
    async def main() -> None:
        url = f"mqtt://127.0.0.1:{server.mqtt_port}"
        with pytest.raises(ValueError, match="http"):
            Client(url, user="alice", http="ftp://host")
        async with Client(url, user=name("alice")) as a:
            with pytest.raises(ClientError):
                await a.upload(tmp_path / "x")
        (tmp_path / "x").write_text("x")
        async with Client(url, user=name("alice"), http="http://127.0.0.1:1") as a:
            with pytest.raises(Offline):
                await a.upload(tmp_path / "x")

    run(main)
