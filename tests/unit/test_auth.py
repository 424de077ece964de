"""Who a connection is (PROTOCOL §2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.bridge import auth
from mqtt_im.bridge.auth import Authenticator
from mqtt_im.bridge.login_limits import LoginLimits, network_of
from mqtt_im.bridge.password_pool import PasswordPool
from mqtt_im.config import AuthConfig, Config, LimitsConfig
from mqtt_im.metrics import Metrics
from mqtt_im.store import passwords
from mqtt_im.store.accounts import Accounts
from mqtt_im.transport.api import Identity, Login, LoginRefused


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hashing:
    """Counts the hashes that are computed."""

    count = 0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._verify = passwords.verify_password
        monkeypatch.setattr(passwords, "verify_password", self.verify)

    def verify(self, password: bytes, password_hash: str) -> bool:
        self.count += 1
        return self._verify(password, password_hash)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    return Hashing(monkeypatch)


@pytest.fixture
def opened(clock: Clock) -> Iterator[Authenticator]:
    authenticator = Authenticator(Config(auth=AuthConfig(mode="open")), None, Metrics(), clock)
    yield authenticator
    authenticator.close()


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    accounts = Accounts(tmp_path)
    accounts.add("alice", "secret")
    yield accounts
    accounts.close()


@pytest.fixture
def closed(accounts: Accounts, clock: Clock) -> Iterator[Authenticator]:
    config = Config(limits=LimitsConfig(failed_logins_per_minute=3))
    authenticator = Authenticator(config, accounts, Metrics(), clock)
    yield authenticator
    authenticator.close()


def login(
    authenticator: Authenticator,
    client_id: str = "phone",
    username: str | None = "alice",
    password: bytes | None = b"secret",
    address: str = "192.0.2.1",
    certificate_user: str | None = None,
) -> Identity:
    return asyncio.run(authenticator.login(Login(client_id, username, password, address, certificate_user)))


def refusal(authenticator: Authenticator, **about: object) -> int:
    with pytest.raises(LoginRefused) as caught:
        login(authenticator, **about)  # type: ignore[arg-type]
    return caught.value.code


@pytest.mark.parametrize(
    ("username", "client_id", "user", "device"),
    [
        ("alice", "phone", "alice", "phone"),
        ("alice", "alice:phone", "alice", "phone"),
        ("alice", "alice", "alice", "alice"),
        ("alice", "bob:phone", "alice", None),
        ("alice", "", "alice", None),
        ("alice", "alice:", "alice", None),
        ("alice", "my phone", "alice", None),
        ("alice", "a/b", "alice", None),
        ("alice", "x" * 65, "alice", None),
        (None, "alice:phone", "alice", "phone"),
        (None, "alice", "alice", "alice"),
        (None, "alice:", None, None),
        (None, ":phone", None, None),
        (None, "alice:my phone", None, None),
        (None, "alice:a:b", None, None),
        (None, "sensor/7", None, None),
        (None, "", None, None),
    ],
)
def test_names_in_open_mode(
    opened: Authenticator, username: str | None, client_id: str, user: str | None, device: str | None
) -> None:
    assert login(opened, client_id, username, None) == Identity(user, device)


@pytest.mark.parametrize("username", ["", "a b", "alice/phone", "#ops", "x" * 65])
def test_a_username_that_is_no_user_id(opened: Authenticator, closed: Authenticator, username: str) -> None:
    assert refusal(opened, username=username) == 4
    assert refusal(closed, username=username) == 4


def test_right_and_wrong_passwords(closed: Authenticator) -> None:
    assert login(closed) == Identity("alice", "phone")
    assert refusal(closed, password=b"Secret") == 4
    assert refusal(closed, password=None) == 4
    assert refusal(closed, username="bob") == 4
    assert refusal(closed, username=None, client_id="alice:phone") == 5


def test_a_token_stands_for_the_password_until_it_is_revoked(closed: Authenticator, accounts: Accounts) -> None:
    token = accounts.add_token("alice").encode()
    assert login(closed, password=token) == Identity("alice", "phone")
    accounts.set_password("alice", "new")
    assert refusal(closed, password=token) == 4


def test_a_certificate_names_the_user(opened: Authenticator, closed: Authenticator) -> None:
    assert login(opened, username=None, certificate_user="zoe") == Identity("zoe", "phone")
    assert login(closed, username=None, password=None, certificate_user="alice") == Identity("alice", "phone")
    assert login(closed, username="alice", password=None, certificate_user="alice") == Identity("alice", "phone")
    assert refusal(closed, username="bob", certificate_user="alice") == 4
    assert refusal(closed, username=None, certificate_user="bob") == 5
    assert refusal(closed, username=None, certificate_user="not a user") == 5


def test_a_reconnect_costs_no_hash(closed: Authenticator, hashing: Hashing, clock: Clock, accounts: Accounts) -> None:
    for _ in range(3):
        login(closed)
    assert hashing.count == 1
    clock.now += 301
    login(closed)
    assert hashing.count == 2
    accounts.set_password("alice", "new")
    assert refusal(closed) == 4
    login(closed, password=b"new")
    assert hashing.count == 4
    accounts.remove("alice")
    assert refusal(closed, password=b"new") == 4


def test_a_user_that_does_not_exist_costs_the_same_hash(closed: Authenticator, hashing: Hashing) -> None:
    assert refusal(closed, username="nobody") == 4
    assert hashing.count == 1


def test_who_fails_too_often_is_not_listened_to_for_a_while(closed: Authenticator, hashing: Hashing, clock: Clock) -> None:
    login(closed)
    for _ in range(3):
        assert refusal(closed, username="mallory") == 4
    before = hashing.count
    assert refusal(closed, username="mallory") == 3
    assert hashing.count == before
    assert login(closed) == Identity("alice", "phone"), "a remembered password is let in"
    assert login(closed, address="192.0.2.2") == Identity("alice", "phone"), "another address is not touched"
    clock.now += 20
    assert refusal(closed, username="mallory") == 4


def test_an_overlong_password_is_wrong(closed: Authenticator, accounts: Accounts) -> None:
    accounts.set_password("alice", "x" * 1024)
    assert login(closed, password=b"x" * 1024) == Identity("alice", "phone")
    assert refusal(closed, password=b"x" * 1025) == 4


def test_known_users_of_a_failing_address_keep_some_tries() -> None:
    limits = LoginLimits(1)
    limits.succeeded("192.0.2.1", "alice", 0)
    limits.failed("192.0.2.1", "mallory", 0)
    assert not limits.allows("192.0.2.1", "mallory", 0)
    assert limits.allows("192.0.2.1", "alice", 0)
    for _ in range(5):
        limits.failed("192.0.2.1", "alice", 0)
    assert not limits.allows("192.0.2.1", "alice", 0)
    assert limits.allows("192.0.2.1", "mallory", 60)


def test_limits_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.bridge.login_limits.MAX_ENTRIES", 2)
    limits = LoginLimits(1)
    for last in range(3):
        limits.failed(f"192.0.2.{last}", "alice", 0)
    assert [limits.allows(f"192.0.2.{last}", "alice", 0) for last in range(3)] == [True, False, False]


def test_an_ipv6_party_is_its_64_bit_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("") == ""


def test_addresses_take_turns() -> None:
    done: list[str] = []

    async def scenario() -> None:
        pool = PasswordPool(threads=1)

        def job(name: str) -> bool:
            done.append(name)
            return True

        def start(address: str, name: str) -> asyncio.Future[bool | None]:
            return asyncio.ensure_future(pool.run(address, lambda: job(name), lambda: True))

        jobs = [start("a", "a1"), start("a", "a2"), start("a", "a3"), start("b", "b1")]
        unwanted = asyncio.ensure_future(pool.run("c", lambda: job("c1"), lambda: False))
        assert await asyncio.gather(*jobs, unwanted) == [True, True, True, True, None]
        assert pool.waiting == 0
        pool.close()

    asyncio.run(scenario())
    assert done == ["a1", "a2", "b1", "a3"]


def test_a_full_pool_is_unavailable(closed: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.bridge.password_pool.MAX_WAITING", 0)
    assert refusal(closed) == auth.UNAVAILABLE


def test_unreadable_accounts_are_unavailable(closed: Authenticator, accounts: Accounts) -> None:
    accounts.close()
    accounts._db.database = str(accounts.path / "gone")
    assert refusal(closed) == auth.UNAVAILABLE
