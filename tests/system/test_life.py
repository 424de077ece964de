"""INTERFACE.md: start, ready, drain, stop, SIGHUP, health; and `mqtt_im.testing` itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mqtt_im.testing import ServerFailed, ServerProcess, ServerThread
from tests.support.raw import eventually
from tests.system.conftest import Clients


def test_health_and_metrics(own_server: ServerProcess) -> None:
    assert own_server.get("/health/live")[0] == 200
    assert own_server.get("/health/ready")[0] == 200
    status, text = own_server.get("/metrics")
    assert status == 200
    assert "mqtt_im_" in text
    assert own_server.get("/nothing")[0] == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_finishes_and_answers_what_it_received(
    own_server: ServerProcess, own_im: Clients, number: signal.Signals
) -> None:
    """SIGTERM and SIGINT drain and exit 0: every message that reached the server is acknowledged or not committed."""
    sender, peer = own_im.online("alice"), own_im.online("bob", clean=False)
    for body in range(200):
        sender.request("send", to="bob", body=body, id=f"m{body}")
    sender.acknowledged(10)
    own_server.signal(number)
    sender.wait_closed()
    assert own_server.wait() == 0
    acknowledged = len(sender.pubacks)
    peer.close()
    own_server.start()
    got = [item["body"] for item in own_im.online("bob").drain()]
    assert got == list(range(len(got)))
    assert len(got) >= acknowledged


def test_a_second_sigint_stops_at_once(own_server: ServerProcess, own_im: Clients) -> None:
    own_im.online("alice")
    own_server.signal(signal.SIGINT)
    own_server.signal(signal.SIGINT)
    own_server.wait()
    own_server.start()
    own_im.online("alice").flush()


def test_sighup_reloads_and_drops_nobody(own_server: ServerProcess, own_im: Clients) -> None:
    client = own_im.online("alice")
    own_server.configure({"limits.max_body_bytes": 100})
    own_server.signal(signal.SIGHUP)
    eventually(lambda: "reloaded" in own_server.log(), "the reload")
    client.flush()
    again = own_im.online("bob")
    assert again.must("hello")["limits"]["body"] in (100, 65_536)


def test_sighup_opens_and_closes_plain_topics(own_server: ServerProcess, own_im: Clients) -> None:
    client = own_im.online("alice")
    assert client.subscribe("open/x") == [0x80]

    def reload(topics: list[str], times: int) -> None:
        own_server.configure({"mqtt.plain_topics": topics})
        own_server.signal(signal.SIGHUP)
        eventually(lambda: own_server.log().count("reloaded") == times, "the reload")

    reload(["open/#", "other/#"], 1)
    assert client.subscribe("open/x", "other/x") == [1, 1]
    reload(["other/#"], 2)
    assert "takes a restart" not in own_server.log()
    client.publish("open/x", b"closed again")
    client.publish("other/x", b"still open")
    client.until(lambda: any(packet.topic == "other/x" for packet in client.plain), "what is open")
    assert [packet.topic for packet in client.plain] == ["other/x"]


def test_a_wrong_configuration_at_sighup_changes_nothing(own_server: ServerProcess, own_im: Clients) -> None:
    client = own_im.online("alice")
    good = own_server.config_file.read_text()
    own_server.config_file.write_text(good + "no.such = 1\n")
    own_server.signal(signal.SIGHUP)
    eventually(lambda: "not reloaded" in own_server.log(), "the refusal")
    client.flush()
    own_server.config_file.write_text(good)


def test_a_port_that_is_taken_is_named() -> None:
    """Exit 1, one line, no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = ServerProcess({"mqtt.bind": f"127.0.0.1:{port}"})
        try:
            with pytest.raises(ServerFailed) as failed:
                server.start()
        finally:
            server.close()
    assert str(port) in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    server = ServerProcess({"limits.max_packet_byte": 5})
    try:
        result = server.command("check-config")
    finally:
        server.close()
    assert result.returncode == 2
    lines = (result.stdout + result.stderr).strip().splitlines()
    assert len(lines) == 1
    assert "limits.max_packet_byte" in lines[0]
    assert "limits.max_packet_bytes" in lines[0]


def test_two_servers_never_share_a_folder(own_server: ServerProcess) -> None:
    other = ServerProcess({"data_dir": str(own_server.data_dir)})
    try:
        with pytest.raises(ServerFailed):
            other.start()
    finally:
        other.close()
    assert own_server.ready()


def test_store_check_and_backup_beside_a_running_server(own_server: ServerProcess, own_im: Clients, tmp_path: Path) -> None:
    """A backup carries a new epoch, and all that was acknowledged before it was made."""
    alice = own_im.online("alice")
    for number in range(20):
        alice.say("bob", number)
    epoch = alice.must("hello")["epoch"]
    assert own_server.command("store", "check").returncode == 0
    file = tmp_path / "backup"
    result = own_server.command("store", "backup", str(file))
    assert result.returncode == 0, result.stderr
    assert file.exists()
    alice.say("bob", "after the backup")
    assert alice.must("hello")["epoch"] == epoch
    restored = ServerProcess()
    assert restored.command("store", "restore", str(file)).returncode == 0
    with restored:
        clients = Clients(restored)
        bob = clients.online("bob")
        assert [item["body"] for item in bob.drain()] == list(range(20))
        assert bob.must("hello")["epoch"] != epoch
        clients.close()


# mqtt_im.testing


def test_a_server_in_this_process() -> None:
    with ServerThread() as server:
        clients = Clients(server)  # type: ignore[arg-type]
        clients.online("alice").say("bob", "hi")
        server.restart()
        assert clients.online("bob").wait("msg")["body"] == "hi"
        clients.close()
    assert not server.running
    assert not server.folder.exists()


def test_ports_and_data_stay_over_kill_and_start() -> None:
    with ServerProcess() as server:
        ports = server.mqtt_port, server.websocket_port, server.http_port
        first = server.pid
        server.kill()
        assert not server.running
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((server.host, server.mqtt_port), timeout=60)
        server.start()
        assert (server.mqtt_port, server.websocket_port, server.http_port) == ports
        assert server.pid != first
    assert not server.folder.exists()


ORPHAN = """
import json, os, signal, sys
from mqtt_im.testing import ServerProcess
server = ServerProcess()
server.start()
print(json.dumps([server.pid, str(server.folder)]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_server_outlives_a_test_that_dies() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    pid, folder = json.loads(result.stdout)
    eventually(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the end of the server"
    )
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def test_a_server_started_by_a_thread_that_ends_goes_on() -> None:
    server = ServerProcess()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        assert server.running
        assert server.ready()
    finally:
        server.close()


def test_the_fixture(mqtt_im_server: ServerProcess) -> None:
    """The entry point `pytest11` offers a running server to other people's suites."""
    clients = Clients(mqtt_im_server)
    clients.online("alice").say("bob", "hi")
    assert clients.online("bob").wait("msg")["body"] == "hi"
    clients.close()


def test_the_log_holds_no_bodies_or_secrets(own_server: ServerProcess, own_im: Clients) -> None:
    client = own_im.online("alice", password="secret-password")
    client.say("bob", "confidential-body")
    client.publish(client.up_topic, b'{"op":"send","to":"bob","confidential-body')
    client.wait("error")
    client.send(b"\xff" * 6)
    client.wait_closed()
    assert "confidential-body" not in own_server.log()
    assert "secret-password" not in own_server.log()
