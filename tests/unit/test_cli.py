"""The command line: exit codes, and one line on stderr for each mistake."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from msgspec import Raw

from mqtt_im.accounts.passwords import verify_password
from mqtt_im.accounts.table import Accounts
from mqtt_im.cli import run, versions
from mqtt_im.cli.serve import introduction
from mqtt_im.config import Address, AuthConfig, Config, HttpConfig, MqttConfig, WebsocketConfig
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.requests import RequestJob
from tests.support.store import SqliteStore

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "mqtt-im.toml"
    file.write_text(f'data_dir = "{tmp_path}/data"\nmqtt.bind = "127.0.0.1:0"\nwebsocket.bind = ""\nhttp.bind = ""\n')
    return file


@pytest.fixture
def command(config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def execute(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run([*arguments, "-c", str(config_file)])
        out, err = capsys.readouterr()
        return code, out, err

    return execute


def test_check_config(command: Command) -> None:
    assert command("check-config") == (0, "The configuration is right.\n", "")
    code, out, err = command("check-config", "--set", "mqtt.bnd=x", "--set", "limits.max_page=0")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "mqtt-im: mqtt.bnd: unknown key; the nearest known one is mqtt.bind (from --set)",
        "mqtt-im: limits.max_page: expected a whole number >= 1, got 0 (from --set)",
    ]


@pytest.mark.parametrize("arguments", [["nonsense"], ["user"], ["user", "add"], ["check-config", "--nonsense"]])
def test_a_wrong_call_is_exit_2_without_a_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mqtt-im ")


def test_the_life_of_an_account(command: Command, tmp_path: Path) -> None:
    added = f"User alice was added in {tmp_path / 'data'}.\n"
    assert command("user", "add", "alice", "--password-stdin", stdin="old secret\n") == (0, added, "")
    accounts = Accounts(tmp_path / "data")
    credentials = accounts.credentials("alice")
    assert credentials is not None
    assert verify_password(b"old secret", credentials.password_hash)

    code, made, _ = command("user", "add", "bob")
    assert code == 0
    credentials = accounts.credentials("bob")
    assert credentials is not None
    assert verify_password(made.strip().encode(), credentials.password_hash)

    code, token, _ = command("user", "token", "bob")
    assert (code, len(token.split())) == (0, 1)
    code, out, _ = command("user", "list")
    assert [(line.split("\t")[0], line.split("\t")[2]) for line in out.splitlines()] == [("alice", "0"), ("bob", "1")]

    assert command("user", "passwd", "bob", "--password-stdin", stdin="two words \r\n")[0] == 0
    credentials = accounts.credentials("bob")
    assert credentials is not None
    assert verify_password(b"two words ", credentials.password_hash)
    assert accounts.tokens("bob") == []

    assert command("user", "remove", "bob")[0] == 0
    assert not accounts.exists("bob") or accounts.version("bob") is None
    accounts.close()


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (
            ["user", "add", "a b", "--password-stdin"],
            "long enough",
            2,
            "'a b' is no user name: it is 1 to 64 of A-Z a-z 0-9 _ . -, but not . or ..",
        ),
        (
            ["user", "add", "alice", "--password-stdin"],
            "7 bytes\n",
            2,
            "a password has 8 characters at least and 1024 bytes at most",
        ),
        (["user", "passwd", "bob"], "", 1, "there is no user bob"),
        (["user", "remove", "bob"], "", 1, "there is no user bob"),
        (["user", "token", "bob"], "", 1, "there is no user bob"),
    ],
)
def test_mistakes_about_accounts(command: Command, arguments: list[str], stdin: str, code: int, message: str) -> None:
    assert command(*arguments, stdin=stdin) == (code, "", f"mqtt-im: {message}\n")


def test_an_account_that_exists(command: Command) -> None:
    command("user", "add", "alice", "--password-stdin", stdin="xxxxxxxx")
    assert command("user", "add", "alice") == (1, "", "mqtt-im: there is a user alice already\n")


def test_doctor_finds_nothing_on_a_good_machine(command: Command, config_file: Path) -> None:
    code, out, err = command("doctor", "--set", "limits.max_connections=10", "--set", "http.bind=127.0.0.1:0")
    assert (code, err) == (0, ""), out
    assert "http.bind: 127.0.0.1:0 is free" in out


def test_doctor_finds_a_taken_port(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = command("doctor", "--set", "limits.max_connections=10", "--set", f"http.bind=127.0.0.1:{port}")
    assert code == 1
    assert f"mend  http.bind: 127.0.0.1:{port} can't be used: Address already in use" in out
    assert err == "mqtt-im: 1 thing to mend\n"


def test_doctor_looks_at_who_lets_users_in(command: Command, tmp_path: Path) -> None:
    def doctor(*settings: str) -> str:
        return command("doctor", *(part for text in settings for part in ("--set", text)))[1]

    (tmp_path / "key").write_text("x" * 40)
    jwt = ("auth.mode=jwt", f"auth.jwt.key={tmp_path / 'key'}")
    assert f"ok    auth.jwt.key: {tmp_path / 'key'} can be used" in doctor(*jwt, "auth.jwt.algorithms=HS256")
    assert "mend  auth.jwt.key: " in doctor(*jwt)
    assert "note  auth.mode is open" in doctor("auth.mode=open")
    with socket.create_server(("127.0.0.1", 0)) as service:
        at = f"127.0.0.1:{service.getsockname()[1]}"
        asked = ("auth.mode=http", f"auth.http.url=http://{at}/login")
        assert f"ok    auth.http.url: {at} can be reached" in doctor(*asked)
    assert f"mend  auth.http.url: {at} can't be reached; nobody can log in" in doctor(*asked)


def test_doctor_knows_what_speaks_no_mqtt() -> None:
    """Another program has the port, and closes, or talks something else."""

    def answer(listening: socket.socket) -> None:
        for said in (b"", b"220 hello\r\n", b"\x20\x02\x00\x01", b"\x20\x02\x00\x01"):
            connection, _ = listening.accept()
            connection.recv(64)
            connection.sendall(said)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = Address("127.0.0.1", listening.getsockname()[1])
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        assert versions.spoken(address, tls=False) == []
        assert versions.spoken(address, tls=False) == []
        thread.join()


def test_doctor_looks_at_certificates(command: Command, tmp_path: Path) -> None:
    authority = trustme.CA()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    settings = ["limits.max_connections=10", "mqtt.tls.bind=127.0.0.1:0", f"mqtt.tls.cert={cert}", f"mqtt.tls.key={key}"]

    def doctor(days: int, mode: int = 0o600) -> tuple[int, str]:
        issued = authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=days, hours=1))
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(cert)
        key.chmod(mode)
        code, out, _ = command("doctor", *(part for text in settings for part in ("--set", text)))
        return code, out

    code, out = doctor(100)
    assert code == 0
    assert "ok    mqtt.tls: certificate and key go together" in out
    assert "ok    mqtt.tls.cert: good until 2" in out
    code, out = doctor(3)
    assert code == 1
    assert f"mend  mqtt.tls.cert: {cert} expires in 3 days" in out
    assert f"mend  mqtt.tls.cert: {cert} has expired" in doctor(-1)[1]
    assert f"mend  mqtt.tls.key: everybody on this machine can read {key}" in doctor(100, 0o644)[1]


def test_doctor_names_files_that_the_server_cannot_open(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("user", "add", "alice")
    accounts = tmp_path / "data" / "accounts.db"
    monkeypatch.setattr(os, "geteuid", lambda: accounts.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda path, _: path != accounts)
    code, out, _ = command("doctor", "--set", "limits.max_connections=10")
    assert code == 1
    assert f"mend  {accounts} can't be read and written by" in out


def test_store_needs_a_store(command: Command, tmp_path: Path) -> None:
    code, _, err = command("store", "backup", str(tmp_path / "backup"))
    assert code == 1
    assert "there is no such file; has a server run on this data_dir?" in err


def test_the_introduction_names_what_listens() -> None:
    text = "\n".join(introduction(Config(auth=AuthConfig(mode="open"), mqtt=MqttConfig(bind="127.0.0.1:5", prefix="chat"))))
    assert "mosquitto_sub -h 127.0.0.1 -p 5 -u bob" in text
    assert "chat/alice/laptop/up" in text
    nothing = Config(mqtt=MqttConfig(bind=""), websocket=WebsocketConfig(bind=""), http=HttpConfig(bind=""))
    assert "mosquitto" not in "\n".join(introduction(nothing))


def test_the_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "mqtt_im", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mqtt-im ")


def test_user_show_tells_what_a_user_keeps_beside_the_quota(command: Command, tmp_path: Path) -> None:
    assert command("user", "show", "ann") == (1, "", "mqtt-im: there is no user ann\n")
    command("user", "add", "ann", "--password-stdin", stdin="correct horse")
    none = ["messages\t0\tno limit", "bytes\t0\tno limit", "groups\t0\tof 2000", "groups made\t0\tof 1000", "devices\t0\tof 100"]
    none += ["users blocked\t0\tof 10000", "conversations muted\t0\tof 10000"]
    assert command("user", "show", "ann")[1].splitlines()[1:] == none
    store = SqliteStore(tmp_path / "data")
    who = Who("ann", "pc", 0)
    store.run([AttachJob(who, lambda _: None)], 5)
    store.run([RequestJob(who, rq.GroupCreate(id="1", members=["bob"]), lambda _: None)], 5)
    store.run([RequestJob(who, rq.Block(id="2", user="cat"), lambda _: None)], 5)
    store.engine.flusher.flush()
    store.run([RequestJob(who, rq.Send(to="bob", body=Raw(b'"1234"')), lambda _: None)], 5)  # not in the projections yet
    code, out, _ = command("user", "show", "ann", "--set", "quota.bytes=10", "--set", "quota.groups=0")
    assert code == 0
    assert out.splitlines()[1:] == [
        "messages\t1\tno limit",
        "bytes\t6\tof 10",
        "groups\t1\tno limit",
        "groups made\t1\tno limit",
        "devices\t1\tof 100",
        "users blocked\t1\tof 10000",
        "conversations muted\t0\tof 10000",
    ]
    assert command("user", "show", "bob")[1].splitlines() == [*none[:2], "groups\t1\tof 2000", *none[3:]]
    store.close()


def test_a_folder_with_accounts_alone_has_nothing_wrong_in_it(command: Command, tmp_path: Path) -> None:
    """The store of a server that has never run; where anything else is there, a log that is not is lost."""
    folder = tmp_path / "fresh"
    place = ("--set", f"data_dir={folder}")
    assert command("user", "add", "ann", *place)[0] == 0
    assert command("store", "check", *place) == (0, f"{folder}: accounts, and no messages yet: no server has run here.\n", "")
    assert command("store", "compact", *place)[0] == 0
    (folder / "projection.db").touch()
    assert command("store", "check", *place)[0] == 1
    assert command("store", "check", "--set", f"data_dir={tmp_path / 'none'}")[0] == 1
