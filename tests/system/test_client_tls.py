"""The client library over TLS: whom it believes, and what it says where it does not."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from mqtt_im.client import Client
from mqtt_im.testing import ServerProcess, free_ports
from tests.support.clients import PATIENCE_S, run, take

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Secured:
    """A server whose MQTT over TLS, WebSocket over TLS and authority these are."""

    server: ServerProcess
    port: int
    authority: trustme.CA
    folder: Path

    @property
    def url(self) -> str:
        return f"mqtts://{HOST}:{self.port}"

    @property
    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


def keep(certificate: trustme.LeafCert, folder: Path) -> dict[str, str]:
    paths = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    certificate.private_key_pem.write_to_path(paths["key"])
    return {name: str(path) for name, path in paths.items()}


def secured(folder: Path, identity: str = HOST, **options: Any) -> Iterator[Secured]:
    authority, (port, web) = trustme.CA(), free_ports(2)
    expires = options.pop("not_after", None)
    begins = None if expires is None else expires - datetime.timedelta(days=1)
    paths = keep(authority.issue_cert(identity, not_after=expires, not_before=begins), folder)
    config = {f"{section}.tls.{name}": path for section in ("mqtt", "http") for name, path in paths.items()}
    if options.pop("client_ca", False):
        authority.cert_pem.write_to_path(folder / "ca.pem")
        config["mqtt.tls.client_ca"] = str(folder / "ca.pem")
    with ServerProcess({**config, "mqtt.tls.bind": f"{HOST}:{port}", "http.tls.bind": f"{HOST}:{web}", **options}) as server:
        yield Secured(server, port, authority, folder)


async def why_not(im: Client) -> str:
    """The reason with which it waits, which only its log tells: the state stays `waiting`, since a certificate may be renewed."""
    async for state in im.states():
        if state == "waiting":
            return str(state)
        assert state == "connecting"
    return ""


def test_an_own_authority_is_trusted_and_others_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for there in secured(tmp_path):

        async def main(there: Secured = there) -> None:
            async with (
                Client(there.url, user="alice", tls=there.trusting) as alice,
                Client(there.url, user="bob", tls=there.trusting) as bob,
            ):
                await (await alice.send("bob", "over TLS")).sent(PATIENCE_S)
                assert (await take(bob, 1))[0].body == "over TLS"
            caplog.set_level("INFO", "mqtt_im.client")
            async with Client(there.url, user="alice") as stranger:
                assert await why_not(stranger) == "waiting"
                with pytest.raises(TimeoutError):
                    await stranger.online(0.1)

        run(main)
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


@pytest.mark.parametrize(
    ("identity", "options", "said"),
    [
        ("im.example.com", {}, "IP address mismatch"),
        (HOST, {"not_after": datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)}, "certificate has expired"),
    ],
    ids=["wrong host name", "expired"],
)
def test_a_certificate_that_does_not_fit_is_not_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, identity: str, options: dict[str, Any], said: str
) -> None:
    for there in secured(tmp_path, identity, **options):

        async def main(there: Secured = there) -> None:
            caplog.set_level("INFO", "mqtt_im.client")
            async with Client(
                there.url, user="alice", password="secret words", tls=there.trusting, store=tmp_path / "a.db"
            ) as im:
                sent = await im.send("bob", "waits")
                assert await why_not(im) == "waiting"
                assert sent.state == "queued"

        run(main)
    assert said in caplog.text
    assert "secret words" not in caplog.text


def test_a_client_certificate_is_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for there in secured(tmp_path, client_ca=True):

        async def main(there: Secured = there) -> None:
            with_certificate = there.trusting
            there.authority.issue_cert("alice@example.com", common_name="alice").configure_cert(with_certificate)
            async with Client(there.url, user="alice", tls=with_certificate) as im:
                await im.online(PATIENCE_S)
                await (await im.send("alice", "to myself")).sent(PATIENCE_S)
            caplog.set_level("INFO", "mqtt_im.client")
            async with Client(there.url, user="alice", tls=there.trusting) as im:
                assert await why_not(im) == "waiting"

        run(main)
    assert "tries again" in caplog.text
