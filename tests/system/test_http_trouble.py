"""HTTP while something is wrong: a store that can't commit, a stream that nobody reads, a stop in between."""

from __future__ import annotations

import signal
import sqlite3
import threading
from typing import Any

import pytest

from mqtt_im.http import connection
from mqtt_im.testing import ServerProcess, ServerThread
from tests.support.raw import eventually
from tests.support.web import Events, Web


def test_a_store_that_can_not_commit_is_told(own_server: ServerProcess) -> None:
    """503 with Retry-After, and the same request goes through once the store is well; reading goes on."""
    with Web(own_server.http_port).login("alice") as alice:
        alice.must("send", to="bob", body="before")
        locks = [sqlite3.connect(file, timeout=60, isolation_level=None) for file in own_server.data_dir.glob("*.db")]
        try:
            for lock in locks:
                lock.execute("BEGIN EXCLUSIVE")
            for op, fields in (("send", {"to": "bob", "body": "during", "id": "k"}), ("read", {"conv": "alice:bob", "seq": 1})):
                answer = alice.post(op, **fields)
                assert (answer.status, answer.code) == (503, "unavailable"), op
                assert int(answer.headers["retry-after"]) >= 1
            assert alice.must("history", conv="alice:bob")["items"][0]["body"] == "before"
            assert own_server.get("/health/ready")[0] == 503
            assert own_server.get("/health/live")[0] == 200
        finally:
            for lock in locks:
                lock.rollback()
                lock.close()
        eventually(lambda: alice.post("send", to="bob", body="during", id="k").status == 200, "the store")
        assert [item["body"] for item in alice.must("history", conv="alice:bob")["items"]] == ["before", "during"]


def test_a_stream_that_nobody_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALLED_S", 1.0)
    with ServerThread({"limits.requests_per_second": 2000}) as server, Web(server.http_port).login("bob") as bob:
        with Events(server.http_port, bob.token, "", 4096) as stream:
            stream.wait("welcome")
            for _ in range(100):
                bob.must("send", to="bob", body="x" * 60_000)
            eventually(lambda: 'closes_total{reason="not_reading"} 1.0' in server.get("/metrics")[1], "the end of the stream")
        with Events(server.http_port, bob.token, "?after=99") as again:
            assert again.wait("msg").id == "100"


def test_a_stop_answers_what_was_begun_and_loses_nothing(own_server: ServerProcess) -> None:
    done: list[tuple[int, int]] = []

    def send(number: int, token: str | None) -> None:
        with Web(own_server.http_port, token) as web:
            for count in range(10_000):
                try:
                    answer = web.post("send", to="alice", body=[number, count], id=f"{number}-{count}")
                except OSError:
                    return
                if answer.status != 200:
                    assert answer.code == "unavailable" and answer.headers["retry-after"]
                    return
                done.append((number, count))

    with Web(own_server.http_port).login("alice") as alice, Events(own_server.http_port, alice.token) as stream:
        stream.wait("welcome")
        senders = [threading.Thread(target=send, args=(number, alice.token)) for number in range(4)]
        for sender in senders:
            sender.start()
        eventually(lambda: len(done) > 50, "some messages")
        own_server.signal(signal.SIGTERM)
        stream.until_closed()
        for sender in senders:
            sender.join()
        assert own_server.wait() == 0
    own_server.start()
    seen: list[Any] = []
    page: dict[str, Any] = {"more": True, "items": []}
    with Web(own_server.http_port).login("alice") as alice:
        while page["more"]:
            after = page["items"][-1]["seq"] if page["items"] else 0
            page = alice.must("history", conv="alice:alice", after=after)
            seen += [tuple(item["body"]) for item in page["items"]]
    assert set(done) <= set(seen) and len(set(seen)) == len(seen)
