"""What a browser is told fits into one record, whatever was written; which URLs the server may call."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mqtt_im.config import WebPushConfig
from mqtt_im.hooks import webpush
from mqtt_im.hooks.encryption import MAX_CONTENT_BYTES, Vapid, encrypt
from mqtt_im.hooks.pending import Summary
from mqtt_im.hooks.push_services import PushServices
from mqtt_im.hooks.sender import Delivery
from mqtt_im.hooks.subscriptions import MAX_PER_USER, Subscription, Subscriptions, origin_of
from mqtt_im.hooks.webpush import PushServiceLine, notification
from mqtt_im.tables import Place
from tests.support.push_service import BrowserKeys, PushService
from tests.support.raw import PATIENCE_S

SERVICES = ("fcm.googleapis.com", "*.notify.windows.com", "http://127.0.0.1:9000")


@pytest.mark.parametrize("text", ["hi", "x" * 100_000, "\u0001" * 5_000, "😀" * 5_000])
def test_a_notification_fits_into_one_record(text: str) -> None:
    said = msgspec.Raw(msgspec.json.encode(text))
    conversations = [
        {"conv": f"#{'g' * 60}{n}", "name": text[:256], "count": 1, "seq": n, "from": "bob", "body": said} for n in range(50)
    ]
    body = notification("id", "alice", Summary(1, 1, 50, conversations))
    assert len(body) <= MAX_CONTENT_BYTES
    told = json.loads(body)
    assert told["count"] == 50 and told["conversations"][0]["conv"].endswith("0")
    keys = BrowserKeys()
    assert keys.decrypt(encrypt(body, keys.told["p256dh"], keys.told["auth"])) == body


def test_the_longest_content_and_no_longer() -> None:
    keys = BrowserKeys()
    assert len(encrypt(b"x" * MAX_CONTENT_BYTES, **keys.told)) == 4096
    with pytest.raises(ValueError, match="at most"):
        encrypt(b"x" * (MAX_CONTENT_BYTES + 1), **keys.told)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://fcm.googleapis.com/fcm/send/x:y", "https://fcm.googleapis.com"),
        ("https://db5p.notify.windows.com/?token=x", "https://db5p.notify.windows.com"),
        ("http://127.0.0.1:9000/x", "http://127.0.0.1:9000"),
    ],
)
def test_listed_services(url: str, origin: str) -> None:
    assert origin_of(url, SERVICES) == origin


@pytest.mark.parametrize(
    "url",
    [
        "http://fcm.googleapis.com/x",
        "https://fcm.googleapis.com:8443/x",
        "https://evil.example/fcm.googleapis.com",
        "https://notify.windows.com.evil.example/x",
        "https://notify.windows.com/x",
        "https://fcm.googleapis.com@evil.example/x",
        "https://fcm.googleapis.com/\r\nHost: x",
        "https://fcm.googleapis.com/" + "x" * 3_000,
        "http://127.0.0.1:9001/x",
        "https://[::1/x",
        "https://fcm.googleapis.com:port/x",
    ],
)
def test_all_others_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        origin_of(url, SERVICES)


def test_the_servers_key_is_made_once_and_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "webpush.pem"
    first = Vapid.open(file, "mailto:a@b").public
    assert Vapid.open(file, "mailto:a@b").public == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("nonsense")
    with pytest.raises(ValueError, match=r"."):
        Vapid.open(file, "mailto:a@b")


def test_one_subscription_for_each_device_and_so_many_for_a_user(new_place: Callable[[], Place]) -> None:
    table = Subscriptions(new_place())

    def put(user: str, device: str, endpoint: str, now: int) -> None:
        table.put(Subscription(user, device, endpoint, "p", "a"), now)

    put("alice", "web", "https://x/1", 1)
    put("alice", "web", "https://x/2", 2)
    assert [each.endpoint for each in table.of("alice")] == ["https://x/2"]
    put("bob", "web", "https://x/2", 3)  # the same browser, as somebody else
    assert table.of("alice") == []
    for number in range(MAX_PER_USER + 5):
        put("carol", f"d{number}", f"https://x/c{number}", number)
    assert len(table.of("carol")) == MAX_PER_USER
    assert table.having(["alice", "bob", "carol"]) == {"bob", "carol"}
    table.gone("https://x/2")
    table.remove("carol", "d24")
    assert table.having(["bob"]) == set() and len(table.of("carol")) == MAX_PER_USER - 1
    table.close()


class Silent:
    """A push service that accepts, and answers nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def calls(self) -> int:
        """How many connections have come since the last time."""
        self._socket.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.accept()[0].close()
                count += 1
        return count

    def close(self) -> None:
        self._socket.close()


def test_a_silent_push_service_holds_up_no_other_and_who_was_told_is_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webpush, "_now", lambda: 0)
    silent, services = Silent(), PushServices()
    vapid = Vapid(ec.generate_private_key(ec.SECP256R1()), "mailto:a@b")
    with contextlib.closing(silent), PushService() as good, contextlib.closing(Subscriptions(tmp_path)) as table:

        def line(timeout_s: float) -> PushServiceLine:
            config = WebPushConfig(services=(silent.origin, good.origin), timeout_s=timeout_s)
            return PushServiceLine(table, vapid, config, services)

        for user, device, origin in [
            ("ann", "a", silent.origin),
            ("bob", "a", silent.origin),
            ("bob", "b", good.origin),
            ("cat", "a", good.origin),
        ]:
            keys = BrowserKeys().told
            table.put(Subscription(user, device, f"{origin}/{user}", keys["p256dh"], keys["auth"]), 0)
        assert not line(0.2).post(told_to("ann")).taken
        assert silent.calls() == 1
        for _ in range(2):
            outcome = line(PATIENCE_S).post(told_to("bob"))
            assert (outcome.taken, outcome.reason, outcome.retry_after >= 1) == (False, "127.0.0.1 is out of order", True)
        assert line(PATIENCE_S).post(told_to("cat")).taken
        assert silent.calls() == 0
        assert [good.requests.get(timeout=PATIENCE_S)[0] for _ in range(2)] == ["/bob", "/cat"]
        assert good.requests.empty()


def told_to(user: str) -> Delivery[str]:
    return Delivery(user, "push", f"1-{user}", b"{}", user)


def test_a_push_service_that_was_forgotten_while_it_was_tried_is_tried_again() -> None:
    services = PushServices(lambda: 0.5)
    for _ in range(2):
        assert services.enter("https://a", 0) == 0
    for number in range(300):
        assert services.enter(f"https://{number}", 0) == 0
    for _ in range(2):
        services.leave("https://a", 0, works=False)
    assert services.enter("https://a", 100_000) == 0


def test_what_is_known_of_push_services_is_bounded_and_each_is_tried_by_one_while_it_is_out_of_order() -> None:
    services = PushServices(lambda: 0.5)
    for number in range(300):
        assert services.enter(f"https://{number}", 0) == 0
        services.leave(f"https://{number}", 0, works=False)
    assert (services.enter("https://0", 1), services.enter("https://299", 1)) == (0, 999)
    assert services.enter("https://299", 1_000) == 0
    assert services.enter("https://299", 1_000) == 1_000, "another one looks already"
    services.leave("https://299", 1_000, works=True)
    assert (services.enter("https://299", 1_001), services.enter("https://299", 1_001)) == (0, 0)
    for number in range(20_000):
        services.half_told(f"{number}", frozenset("x"))
    assert (services.told("9000"), services.told("19999")) == (frozenset(), frozenset("x"))
    for number in range(100):
        services.half_told(f"long{number}", frozenset(("y" * 100_000,)))
    assert (services.told("19999"), services.told("long0"), len(services.told("long99"))) == (frozenset(), frozenset(), 1)
    services.half_told("long99", frozenset())
    assert services.told("long99") == frozenset()
