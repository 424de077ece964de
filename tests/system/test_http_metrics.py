"""`/metrics`: the names that stay, and health's places of its own."""

from __future__ import annotations

import re
import socket

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.raw import eventually
from tests.support.web import HOST, Events, Web
from tests.system.conftest import Clients, Name
from tests.system.test_http_raw import MUCH, answers, late, problem


def samples(server: ServerProcess) -> dict[str, float]:
    status, text = server.get("/metrics")
    assert status == 200
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_the_fixed_names(server: ServerProcess, im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    before = samples(server)
    alice.say(bob.user, "hello")
    bob.wait("msg")
    alice.refused("history", "not_member", conv="#none")
    im.online(name("carol")).disconnect()

    def counted() -> bool:
        now = samples(server)
        return (
            now["mqtt_im_messages_committed_total"] >= before["mqtt_im_messages_committed_total"] + 1
            and now["mqtt_im_commit_seconds_count"] > before["mqtt_im_commit_seconds_count"]
            and now["mqtt_im_delivery_seconds_count"] > before["mqtt_im_delivery_seconds_count"]
            and now["mqtt_im_batch_jobs_count"] > before["mqtt_im_batch_jobs_count"]
            and now['mqtt_im_connections{protocol="mqtt3"}'] == 2
            and now['mqtt_im_refusals_total{code="not_member"}'] == 1
            and now['mqtt_im_closes_total{reason="disconnect"}'] >= 1
        )

    eventually(counted, "the figures")
    now = samples(server)
    assert {"mqtt_im_devices_behind", "mqtt_im_worst_lag_items", "mqtt_im_ledger_queue_jobs"} <= set(now)
    assert now["process_resident_memory_bytes"] > 0 and any(key.startswith("python_info") for key in now)
    _, text = server.get("/metrics")
    names = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[0] != "#"}
    for sample in names:
        family = re.sub(r"_(total|bucket|count|sum|created)$", "", sample)
        assert re.search(rf"^# HELP {family}(_total)? ", text, re.MULTILINE), sample
        assert re.search(rf"^# TYPE {family}(_total)? ", text, re.MULTILINE), sample
    assert name("alice") not in text


def test_what_a_device_missed_is_no_delivery_time(server: ServerProcess, im: Clients, name: Name) -> None:
    bob = name("bob")
    im.online(bob).disconnect()
    alice = im.online(name("alice"))
    for body in range(3):
        alice.say(bob, body)
    alice.flush()
    before = samples(server)["mqtt_im_delivery_seconds_count"]
    phone = im.online(bob)
    phone.received(3)
    phone.flush()
    assert samples(server)["mqtt_im_delivery_seconds_count"] == before
    alice.say(bob, "now")
    phone.wait("msg", body="now")
    phone.flush()
    alice.flush()
    assert samples(server)["mqtt_im_delivery_seconds_count"] == before + 2  # bob's msg, and alice's sent


@pytest.mark.parametrize("own_server", [{"http.max_connections": 8}], indirect=True)
def test_health_has_places_of_its_own(own_server: ServerProcess) -> None:
    port = own_server.http_port
    busy = [socket.create_connection((HOST, port), timeout=60) for _ in range(8)]
    try:
        for connection in busy:  # each waits for the rest of a body
            connection.sendall(b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            connection.sendall(b"Content-Length: 9\r\n\r\n{")

        def refused() -> bool:
            with Web(port) as web:
                return web.post("login", user="alice").status == 503

        eventually(refused, "all places are taken")  # who has said nothing yet would give way to who comes
        busy += [socket.create_connection((HOST, port), timeout=60) for _ in range(300)]  # and these say nothing
        for _ in range(3):
            assert own_server.get("/health/live")[0] == 200
            assert own_server.get("/health/ready")[0] == 200
        with Web(port) as web:
            answer = web.post("login", user="alice")
            assert (answer.status, answer.code) == (503, "unavailable")
            assert answer.headers["retry-after"]
        head = f"POST /api/v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: {len(MUCH)}\r\n\r\n"
        assert problem(late(port, head.encode() + MUCH)) == (503, "unavailable"), "to who is still sending, too"
    finally:
        for connection in busy:
            connection.close()

    def answered() -> bool:
        with Web(port) as web:
            return web.post("login", user="alice").status == 200

    eventually(answered, "a place")


def test_metrics_at_an_address_of_their_own(server: ServerProcess, tmp_path: object) -> None:
    from mqtt_im.testing import free_ports

    (port,) = free_ports(1)
    with ServerProcess({"http.metrics_bind": f"{HOST}:{port}"}) as other, Web(port) as metrics:
        assert metrics.ask("GET", "/metrics").status == 200
        assert metrics.ask("GET", "/health/ready").status == 200
        assert metrics.ask("GET", "/").status == 404
        assert other.get("/metrics")[0] == 404
        assert other.get("/health/live")[0] == 200


def test_health_is_asked_in_every_way_that_balancers_have(server: ServerProcess) -> None:
    """HTTP/1.0 without Host, HEAD, a Host that is an address, and the whole URL as target."""
    for asked in (
        b"GET /health/ready HTTP/1.0\r\n\r\n",
        b"HEAD /health/ready HTTP/1.0\r\nHost: 10.0.0.7:8080\r\nUser-Agent: check\r\n\r\n",
        b"GET /health/live?from=balancer HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
        b"GET http://10.0.0.7/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        found = answers(server.http_port, asked)
        assert found.startswith(b"HTTP/1.1 200 "), (asked, found)
        assert (b'"status":"ok"' in found) is not asked.startswith(b"HEAD")


@pytest.mark.parametrize("own_server", [{"http.max_connections": 8}], indirect=True)
def test_a_connection_that_had_no_place_gets_one(own_server: ServerProcess) -> None:
    """Balancers ask for health and pass requests on the same connections."""
    with Web(own_server.http_port).login("alice") as web:
        token = web.token
    streams = [Events(own_server.http_port, token) for _ in range(8)]
    for stream in streams:
        stream.wait("welcome")
    with Web(own_server.http_port, token) as balancer:
        assert balancer.ask("GET", "/health/ready").status == 200
        for stream in streams:
            stream.close()
        eventually(lambda: own_server.get("/metrics")[0] == 200, "places")
        assert balancer.post("devices").status == 200
