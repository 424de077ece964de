"""`mqtt-im bench`: each load for a moment, against this server and against mosquitto."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trustme

from mqtt_im.testing import ServerProcess, free_ports
from tests.support.mosquitto import mosquitto

CONFIG = {"mqtt.plain_topics": ["bench/#"], "limits.requests_per_second": 1_000_000}


def bench(*options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mqtt_im", "bench", *options]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)


def measured(*options: str, stdin: str = "") -> dict[str, Any]:
    """What it says with --json, which is all that it prints."""
    done = bench("--json", "--pairs", "4", "--seconds", "1", *options, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def url(server: ServerProcess) -> str:
    return f"mqtt://127.0.0.1:{server.mqtt_port}"


@pytest.mark.parametrize("workload", ["direct", "group", "idle", "storm", "catchup", "plain"])
def test_each_load_runs_against_this_server(server: ServerProcess, workload: str) -> None:
    found = measured("--url", url(server), "--workload", workload)
    assert (found["workload"], found["pairs"]) == (workload, 4)
    assert found["count"] >= 4
    assert found["per_second"] > 0
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert found["server"]["pid"] == server.pid
    assert found["server"]["cpu_s"] > 0 or workload in ("idle", "storm")
    assert found["server"]["memory_mb"] > 10


def test_messages_and_copies_are_counted_alike(server: ServerProcess) -> None:
    before = int(_metric(server, "messages_committed_total"))
    found = measured("--url", url(server), "--workload", "direct", "--inflight", "2")
    assert 0 < found["count"] <= int(_metric(server, "messages_committed_total")) - before
    paced = measured("--url", url(server), "--workload", "group", "--rate", "20")
    assert (paced["rate"], paced["inflight"]) == (20.0, 0)
    assert 4 * 10 <= paced["count"] <= 4 * 22


def _metric(server: ServerProcess, name: str) -> float:
    lines = [line for line in server.get("/metrics")[1].splitlines() if line.startswith(f"mqtt_im_{name} ")]
    return float(lines[0].split()[1])


def test_plain_runs_against_mosquitto(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        where = ("--url", f"mqtt://127.0.0.1:{port}")
        found = measured(*where, "--workload", "plain", "--user", "anybody", "--password-stdin", stdin="x\n")
        assert found["count"] > 4
        assert found["server"]["memory_mb"] > 0
        wrong = bench(*where, "--workload", "direct", "--pairs", "1")
    assert wrong.returncode == 1
    assert "--workload plain" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


def test_a_person_reads_a_table_and_sees_a_picture(server: ServerProcess, tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    options = ("--url", url(server), "--pairs", "2", "--seconds", "1", "--plot", str(picture))
    done = bench(*options)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("direct, 2 pairs", "p50", "p99", "p99.9", "memory", "generator"):
        assert word in done.stdout
    drawing = ElementTree.fromstring(picture.read_text("utf-8"))
    assert len(drawing.findall(".//{http://www.w3.org/2000/svg}polyline")) >= 2


def test_what_is_wrong_is_said_in_one_line(server: ServerProcess) -> None:
    (nobody,) = free_ports(1)
    for options, code, word in (
        (("--workload", "nonsense"), 2, "direct"),
        (("--url", "http://127.0.0.1"), 2, "mqtt://"),
        (("--user", "alice"), 2, "--names"),
        (("--url", f"mqtt://127.0.0.1:{nobody}", "--pairs", "1"), 1, str(nobody)),
        (("--url", url(server), "--workload", "plain", "--prefix", "closed"), 1, "refused"),
        (("--url", url(server), "--prefix", "other", "--pairs", "1"), 1, "refused"),
    ):
        done = bench(*options)
        assert done.returncode == code, (options, done.stderr)
        assert word in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_it_logs_in_over_tls_with_a_password(tmp_path: Path) -> None:
    authority, (port,) = trustme.CA(), free_ports(1)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = {"bind": f"127.0.0.1:{port}", "cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    tls = {f"mqtt.tls.{key}": value for key, value in tls.items()}
    with ServerProcess({**tls, "auth.mode": "accounts"}) as server:
        for name in ("xa0", "xb0"):
            assert server.command("user", "add", name, "--password-stdin", stdin="secret words").returncode == 0
        options = ("--url", f"mqtts://127.0.0.1:{port}", "--ca", str(tmp_path / "ca.pem"), "--names", "x", "--pairs", "1")
        assert measured(*options, "--password-stdin", stdin="secret words\n")["count"] > 0
        wrong = bench(*options, "--password-stdin", stdin="guess\n")
        assert (wrong.returncode, "wrong name or password" in wrong.stderr) == (1, True), wrong.stderr
        stranger = bench("--url", f"mqtts://127.0.0.1:{port}", "--pairs", "1")
        assert (stranger.returncode, stranger.stderr.count("\n")) == (1, 1), stranger.stderr
