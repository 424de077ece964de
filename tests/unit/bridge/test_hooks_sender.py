"""The HTTP side of webhooks, against a receiver on loopback."""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trustme

from mqtt_im.hooks import sender as senders
from mqtt_im.hooks.sender import Delivery, Outcome, Sender, WebhookLine, signature
from tests.support.raw import PATIENCE_S, eventually
from tests.support.receiver import SECRET, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Posts:
    """Makes senders, and ends them when the test is over."""

    def __init__(self) -> None:
        self.outcomes: SimpleQueue[Outcome[int]] = SimpleQueue()
        self.senders: list[Sender[int]] = []

    def sender(self, url: str, timeout_s: float = PATIENCE_S) -> Sender[int]:
        sender: Sender[int] = Sender("test", lambda: WebhookLine(url, SECRET, timeout_s), self.outcomes.put)
        self.senders.append(sender)
        return sender

    def post(self, sender: Sender[int], key: int = 1, **fields: Any) -> Outcome[int]:
        sender.send(Delivery(key, "push", f"id-{key}", b'{"a":1}', fields.pop("lane", "bob"), **fields))
        return self.outcomes.get(timeout=PATIENCE_S)


@pytest.fixture
def posts() -> Iterator[Posts]:
    posts = Posts()
    yield posts
    for sender in posts.senders:
        sender.end()


def test_a_delivery_is_a_signed_post(receiver: Receiver, posts: Posts) -> None:
    outcome = posts.post(posts.sender(receiver.url), 5)
    assert (outcome.taken, outcome.reached, outcome.status) == (True, True, 204)
    (webhook,) = receiver.received
    assert (webhook.method, webhook.path, webhook.body) == ("POST", "/hook?for=tests", b'{"a":1}')
    assert webhook.headers["Content-Type"] == "application/json"
    assert (webhook.headers["MQTT-IM-Event"], webhook.headers["MQTT-IM-Id"]) == ("push", "id-5")
    assert abs(int(webhook.headers["MQTT-IM-Timestamp"]) - time.time()) < 300
    assert webhook.signed


def test_the_signature_is_over_timestamp_and_body() -> None:
    expected = hmac.new(b"s", b"12.{}", hashlib.sha256).hexdigest()
    assert signature("s", "12", b"{}") == f"sha256={expected}"


def test_one_connection_serves_many_deliveries_in_their_order(receiver: Receiver, posts: Posts) -> None:
    sender = posts.sender(receiver.url)
    for number in range(5):
        sender.send(Delivery(number, "push", str(number), b"{}", "bob"))
    for _ in range(5):
        posts.outcomes.get(timeout=PATIENCE_S)
    assert [webhook.headers["MQTT-IM-Id"] for webhook in receiver.received] == ["0", "1", "2", "3", "4"]
    assert len({webhook.connection for webhook in receiver.received}) == 1


def test_a_connection_that_the_receiver_has_closed_is_made_anew(receiver: Receiver, posts: Posts) -> None:
    sender = posts.sender(receiver.url)
    receiver.headers["Connection"] = "close"
    assert posts.post(sender).taken
    del receiver.headers["Connection"]
    assert posts.post(sender).taken
    port = receiver.port
    receiver.close()
    with Receiver(port) as again:
        assert posts.post(sender).taken
        assert len(again.received) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, posts: Posts, status: int) -> None:
    receiver.statuses.append(status)
    receiver.headers["Location"] = f"http://127.0.0.1:{receiver.port}/other"
    receiver.headers["Content-Length"] = "0"
    outcome = posts.post(posts.sender(receiver.url))
    assert (outcome.taken, outcome.reached, outcome.reason) == (False, True, f"status {status}")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(("status", "reached"), [(400, True), (404, True), (429, False), (500, False), (503, False)])
def test_what_a_status_says_of_the_receiver(receiver: Receiver, posts: Posts, status: int, reached: bool) -> None:
    receiver.statuses.append(status)
    receiver.headers.update({"Content-Length": "0", "Retry-After": "7"})
    outcome = posts.post(posts.sender(receiver.url))
    assert (outcome.taken, outcome.reached, outcome.retry_after) == (False, reached, 7)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("5", 5), ("999999999999", 3600), ("soon", 0), ("-5", 0)])
def test_retry_after_is_bounded(receiver: Receiver, posts: Posts, text: str, seconds: int) -> None:
    receiver.statuses.append(503)
    receiver.headers.update({"Content-Length": "0", "Retry-After": text})
    assert posts.post(posts.sender(receiver.url)).retry_after == seconds


def test_a_large_answer_is_not_read_to_its_end(receiver: Receiver, posts: Posts) -> None:
    receiver.statuses.append(200)
    receiver.answer = b"x" * (senders.MAX_ANSWER_BYTES * 4)
    sender = posts.sender(receiver.url)
    assert posts.post(sender).taken
    receiver.answer = b""
    assert posts.post(sender).taken
    assert len({webhook.connection for webhook in receiver.received}) == 2


def test_a_receiver_that_is_not_there(posts: Posts) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = posts.post(posts.sender(f"http://127.0.0.1:{unused.getsockname()[1]}/"))
    assert (outcome.taken, outcome.reached) == (False, False)
    assert "refused" in outcome.reason.lower()


def test_a_receiver_that_speaks_no_http(posts: Posts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"\0\1\2 nonsense\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        outcome = posts.post(posts.sender(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        thread.join()
    assert (outcome.taken, outcome.reached) == (False, False)
    assert outcome.reason


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_is_verified(posts: Posts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Receiver(tls=tls) as receiver:
        sender = posts.sender(f"https://127.0.0.1:{receiver.port}/hook")
        outcomes = [posts.post(sender, key) for key in (1, 2)]
        assert [outcome.taken for outcome in outcomes] == [trusted, trusted]
        if trusted:
            assert len({webhook.connection for webhook in receiver.received}) == 1
        else:
            assert "certificate" in outcomes[0].reason.lower()
            assert receiver.received == []


def test_an_answer_that_drips_is_cut_off_when_its_time_is_over(posts: Posts) -> None:
    """Each byte comes within the time of one read, but the whole of it never comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not over.wait(0.02):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        sender = posts.sender(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.3)
        sender.send(Delivery(1, "push", "1", b"{}", "bob"))

        def cut() -> bool:
            sender.cut_late()
            return not posts.outcomes.empty()

        eventually(cut, "the end of the attempt")
        outcome = posts.outcomes.get()
        assert outcome.reason == "no answer within 0.3 s"
        assert not outcome.reached
        over.set()
        thread.join()


def test_a_hanging_receiver_holds_up_neither_other_lanes_nor_the_end(receiver: Receiver, posts: Posts) -> None:
    sender = posts.sender(receiver.url)
    receiver.hold.set()
    sender.send(Delivery(1, "push", "1", b"{}", "bob"))
    receiver.until(len, "webhook")
    sender.send(Delivery(2, "push", "2", b"{}", "eve"))
    receiver.until(lambda received: len(received) == 2, "webhook on another lane")
    sender.end()
    assert sender._gone()
