"""What an operator does to a running server, and what it must never do in return."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from mqtt_im.testing import ServerProcess, Value, free_ports
from tests.support.im import ImClient
from tests.support.raw import eventually


@contextmanager
def serving(server: ServerProcess, stderr: int, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """`mqtt-im serve` on this server's configuration, with a stderr of one's own."""
    command = [sys.executable, "-m", "mqtt_im", "serve", "-c", str(server.config_file)]
    package = str(Path(__file__).resolve().parent.parent.parent)
    process = subprocess.Popen(
        command, stdout=stdout, stderr=stderr, cwd=server.folder, env={**os.environ, "PYTHONPATH": package}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        server.close()


def test_a_reload_during_the_start_waits_for_its_end(tmp_path: Path) -> None:
    server = ServerProcess(folder=tmp_path)
    with (tmp_path / "stderr").open("wb") as stderr, serving(server, stderr.fileno()) as process:
        # From the moment on at which the program itself runs: Python's own start is not in our hands.
        ignored = 1 << (signal.SIGHUP - 1)
        status = Path(f"/proc/{process.pid}/status")

        def obeys() -> bool:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            return bool((int(lines["SigIgn"], 16) | int(lines["SigCgt"], 16)) & ignored)

        eventually(obeys, "the program runs")
        while not server.ready():
            process.send_signal(signal.SIGHUP)
            assert process.poll() is None
        eventually(lambda: "reloaded" in (tmp_path / "stderr").read_text(), "the reload after the start")
        assert process.poll() is None


def test_a_stop_during_the_start_is_a_clean_one(tmp_path: Path) -> None:
    server = ServerProcess(folder=tmp_path)
    with (tmp_path / "stderr").open("wb") as stderr, serving(server, stderr.fileno()) as process:
        eventually(server.data_dir.exists, "the start has begun")
        process.terminate()
        assert process.wait(60) == 0


def test_a_log_that_nobody_reads_stops_nobody(tmp_path: Path) -> None:
    server = ServerProcess(folder=tmp_path)
    reading, writing = os.pipe()
    # Full already, so the first line must wait.
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    filled = 0
    try:
        while True:
            filled += os.write(writing, b"x" * 4096)
    except BlockingIOError:
        fcntl.fcntl(writing, fcntl.F_SETFL, flags)
    with serving(server, writing) as process:
        os.close(writing)
        eventually(server.ready, "ready although nobody reads")
        for number in range(3):
            client = ImClient(server.mqtt_port, f"user{number}", "phone").sign_in().listen()
            client.must("send", to="bob", body="hi")
            client.close()
        while filled > 0:
            filled -= len(os.read(reading, filled))
        seen = ""
        while "connection ended" not in seen:
            seen += os.read(reading, 65_536).decode()
        assert "ready" in seen
        assert "logged in user=user0 device=phone address=127.0.0.1" in seen
        process.terminate()
        assert process.wait(60) == 0
    os.close(reading)


def test_with_json_lines_nothing_else_is_written(tmp_path: Path) -> None:
    server = ServerProcess({"log.format": "json"}, folder=tmp_path)
    with (
        (tmp_path / "stderr").open("wb") as stderr,
        (tmp_path / "stdout").open("wb") as stdout,
        serving(server, stderr.fileno(), stdout.fileno()) as process,
    ):
        eventually(server.ready, "ready")
        process.terminate()
        assert process.wait(60) == 0
    assert (tmp_path / "stdout").read_text() == ""
    lines = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
    assert [line["message"] for line in lines if line["message"] in ("ready", "stopped")] == ["ready", "stopped"]


def test_doctor_tells_which_versions_a_running_server_speaks(tmp_path: Path) -> None:
    """Over TCP and TLS, and without a login."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    key.chmod(0o600)
    tls: dict[str, Value] = {
        "mqtt.tls.bind": f"127.0.0.1:{free_ports(1)[0]}",
        "mqtt.tls.cert": str(cert),
        "mqtt.tls.key": str(key),
    }
    with ServerProcess({**tls, "auth.mode": "accounts"}) as server:
        said = server.command("doctor").stdout
        assert "ok    mqtt.bind: it speaks MQTT 3.1.1 and 5" in said
        assert "ok    mqtt.tls.bind: it speaks MQTT 3.1.1 and 5" in said
        assert "login refused" not in server.log()
