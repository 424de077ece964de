"""The tests' own tools: the faulty proxy and the raw client, against a plain echo server and mosquitto."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import packets
from tests.support.mosquitto import mosquitto
from tests.support.packets import Publish
from tests.support.proxy import CLEAR, Fault, ProxyThread, Way
from tests.support.raw import RawClient


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(65_536):
                self.request.sendall(data)
        except OSError:
            pass


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def through(fault: Fault, port: int, data: bytes) -> tuple[bytes, str]:
    """What comes back through the proxy, and how it ended: `whole`, `reset` or `silence`."""
    with ProxyThread(port, fault) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5) as client:
        back = b""
        try:
            client.sendall(data)
            while len(back) < len(data):
                back += client.recv(65_536)
        except ConnectionError:
            return back, "reset"
        except TimeoutError:
            return back, "silence"
        return back, "whole"


DATA = bytes(range(256)) * 8


@pytest.mark.parametrize(
    "fault",
    [CLEAR, Fault(Way(piece=1), Way(piece=100)), Fault(Way(delay_s=0.01)), Fault(down=Way(bytes_per_s=100_000))],
    ids=["clear", "pieces", "delay", "throttle"],
)
def test_a_slow_way_is_whole(echo_port: int, fault: Fault) -> None:
    assert through(fault, echo_port, DATA) == (DATA, "whole")


@pytest.mark.parametrize("fault", [Fault(down=Way(cut_after=700)), Fault(up=Way(cut_after=700))], ids=["down", "up"])
def test_a_cut_comes_at_its_byte(echo_port: int, fault: Fault) -> None:
    back, end = through(fault, echo_port, DATA)
    assert end == "reset"
    assert DATA.startswith(back)
    assert len(back) <= 700


@pytest.mark.parametrize("fault", [Fault(down=Way(stall_after=700)), Fault.half_open(700)], ids=["down", "half open"])
def test_a_stall_is_silent(echo_port: int, fault: Fault) -> None:
    assert through(fault, echo_port, DATA) == (DATA[:700], "silence")


@pytest.fixture
def mosquitto_port(tmp_path: Path) -> Iterator[int]:
    with mosquitto(tmp_path) as port:
        yield port


def test_the_raw_client_speaks_mqtt(mosquitto_port: int) -> None:
    """… as another broker understands it: subscribe, every QoS, redelivery with DUP, wills."""
    with RawClient(mosquitto_port) as one, RawClient(mosquitto_port) as other:
        assert one.connect("one", clean=False) is False
        one.send(packets.subscribe(1, ("x/#", 2)))
        assert one.expect(packets.SUBACK).codes == [2]
        other.connect("other", will=packets.Will("x/will", b"gone", qos=0))
        other.send(packets.publish("x/0", b"zero", qos=0) + packets.publish("x/1", b"one", packet_id=5))
        assert other.expect(packets.PUBACK).packet_id == 5
        other.send(packets.publish("x/2", b"two" * 100, qos=2, packet_id=6))
        assert other.expect(packets.PUBREC).packet_id == 6
        other.send(packets.acknowledge(packets.PUBREL, 6))
        assert other.expect(packets.PUBCOMP).packet_id == 6
        other.abort()
        got = [Publish.of(one.expect(packets.PUBLISH)) for _ in range(4)]
        assert [(each.topic, each.payload, each.qos) for each in got] == [
            ("x/0", b"zero", 0), ("x/1", b"one", 1), ("x/2", b"two" * 100, 2), ("x/will", b"gone", 0),
        ]  # fmt: skip
        one.abort()
        with RawClient(mosquitto_port) as again:
            assert again.connect("one", clean=False) is True
            repeated = [Publish.of(again.expect(packets.PUBLISH)) for _ in range(2)]
            assert [(each.topic, each.packet_id, each.dup) for each in repeated] == [
                (each.topic, each.packet_id, True) for each in got if each.qos
            ]


def test_a_soak_of_seconds_runs_to_its_end() -> None:
    """Clients of both versions come and go, and nothing of them is left."""
    arguments = ["--minutes", "0.05", "--fill", "250", "--clients", "6", "--seed", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("flat\n")
    assert all(life in done.stdout for life in ("chats5", "speaks_plain_mqtt5", " chats,"))
