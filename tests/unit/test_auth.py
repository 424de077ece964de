"""Who a connection is (PROTOCOL §2)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mqtt_im.accounts import passwords
from mqtt_im.accounts.models import Credentials
from mqtt_im.accounts.table import Accounts
from mqtt_im.bridge.logins import auth, limits, verdicts
from mqtt_im.bridge.logins.auth import Authenticator
from mqtt_im.bridge.logins.limits import LoginLimits
from mqtt_im.bridge.logins.password_pool import NotYetError, Place, Standing, Verification
from mqtt_im.config import AuthConfig, Config, LimitsConfig
from mqtt_im.metrics import Metrics
from mqtt_im.tables.sqlite import SqliteTables
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
    accounts.add("alice", "old secret")
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
    password: bytes | None = b"old secret",
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
    found = login(closed, password=token)
    assert (found.user, found.device) == ("alice", "phone")
    assert found.lease is not None and [found.lease.token] == [known.id for known in accounts.tokens("alice")]
    accounts.set_password("alice", "new secret")
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
    accounts.set_password("alice", "new secret")
    assert refusal(closed) == 4
    login(closed, password=b"new secret")
    assert hashing.count == 4
    accounts.remove("alice")
    assert refusal(closed, password=b"new secret") == 4


def test_a_user_that_does_not_exist_costs_the_same_hash(closed: Authenticator, hashing: Hashing) -> None:
    assert refusal(closed, username="nobody") == 4
    assert hashing.count == 1


def test_who_fails_too_often_is_not_listened_to_for_a_while(closed: Authenticator, hashing: Hashing, clock: Clock) -> None:
    login(closed)
    for guess in (b"1", b"2", b"3"):
        assert refusal(closed, username="mallory", password=guess) == 4
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
    limits = LoginLimits(1, 100)
    limits.succeeded("192.0.2.1", "alice", 0)
    limits.failed("192.0.2.1", "mallory", 0)
    assert not limits.allows("192.0.2.1", "mallory", 0)
    assert limits.allows("192.0.2.1", "alice", 0)
    for _ in range(5):
        limits.failed("192.0.2.1", "alice", 0)
    assert not limits.allows("192.0.2.1", "alice", 0)
    assert limits.allows("192.0.2.1", "mallory", 60)


def test_who_is_known_and_who_is_suspect() -> None:
    limits = LoginLimits(100, 100)
    assert not limits.knows("192.0.2.1", "alice", 0) and not limits.suspects("192.0.2.1", 0)
    limits.succeeded("192.0.2.1", "alice", 0)
    assert limits.knows("192.0.2.1", "alice", 0) and not limits.knows("192.0.2.2", "alice", 0)
    limits.failed("192.0.2.1", "alice", 0)
    assert not limits.suspects("192.0.2.1", 0), "who is known there may mistype"
    limits.failed("192.0.2.1", "bob", 0)
    assert limits.suspects("192.0.2.1", 599) and not limits.suspects("192.0.2.1", 601)
    assert limits.knows("192.0.2.1", "alice", 0), "others' guesses do not make alice unknown"


def test_guessers_wait_in_a_line_of_their_own(closed: Authenticator, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Place] = []
    run = closed._pool.run

    async def look(address: str, digest: bytes, check: Verification) -> int:
        places.append(check.place())
        return await run(address, digest, check)

    monkeypatch.setattr(closed._pool, "run", look)
    accounts.add("bob", "secret of bob")
    login(closed)
    refusal(closed, username="bob", password=b"guess")
    refusal(closed, username="bob", password=b"another guess")
    accounts.set_password("alice", "new secret")
    login(closed, password=b"new secret")
    login(closed, username="bob", password=b"secret of bob", address="192.0.2.2")
    assert places == [
        Place(Standing.NEW, "192.0.2.1"),
        Place(Standing.NEW, "192.0.2.1"),
        Place(Standing.SUSPECT, "192.0.2.1"),
        Place(Standing.KNOWN, "alice"),
        Place(Standing.NEW, "192.0.2.2"),
    ]


def test_an_account_that_is_guessed_at_is_bounded_over_all_addresses() -> None:
    limits = LoginLimits(100, 3)
    for last in range(3):
        assert limits.allows(f"192.0.2.{last}", "alice", 0)
        limits.failed(f"192.0.2.{last}", "alice", 0)
    for last in range(3):
        assert not limits.allows(f"192.0.2.{last}", "alice", 0)
        assert limits.allows(f"192.0.2.{last}", "bob", 0), "another account is not touched"
    assert not limits.allows("192.0.2.9", "alice", 0)
    assert limits.first_try("192.0.2.9", "alice", 0), "an address from which nothing has failed has a try"
    limits.failed("192.0.2.9", "alice", 0)
    assert not limits.allows("192.0.2.9", "alice", 0)
    limits.failed("127.0.0.1", "alice", 0)
    assert not limits.allows("127.0.0.1", "alice", 0), "nor does the machine itself guess at one account for ever"
    assert limits.allows("192.0.2.1", "alice", 20)


def test_a_password_that_comes_back_is_looked_at_within_a_bound() -> None:
    limits = LoginLimits(1, 1)
    assert not limits.comes_back("192.0.2.1", "alice", b"right", 0)
    assert not limits.comes_back("192.0.2.1", "alice", b"right", 0.4)
    assert limits.comes_back("192.0.2.1", "alice", b"right", 0.6)
    assert not limits.comes_back("192.0.2.1", "alice", b"right", 0.7), "once"
    assert not limits.comes_back("192.0.2.1", "alice", b"late", 1)
    assert not limits.comes_back("192.0.2.1", "alice", b"late", 100)
    passed = 0
    for guess in range(1000):
        limits.comes_back("192.0.2.1", "bob", b"%d" % guess, 200)
    for guess in range(1000):
        passed += limits.comes_back("192.0.2.1", "bob", b"%d" % guess, 201)
    assert passed == 8
    assert not limits.comes_back("192.0.2.2", "bob", b"another address, the same account", 201)


def test_first_tries_from_many_addresses_are_bounded() -> None:
    """Who has a thousand addresses does not fill the line in which a right password stands."""
    limits = LoginLimits(10, 3)
    for _ in range(3):
        limits.failed("192.0.2.1", "alice", 0)
    tried = [limits.first_try(f"198.51.{number}.1", "alice", 0) for number in range(100)]
    assert sum(tried) == 8
    assert limits.first_try("203.0.113.1", "alice", 0.5) and not limits.first_try("203.0.114.1", "alice", 0.5)
    assert limits.first_try("203.0.113.1", "bob", 0)


def test_right_logins_get_in_whatever_guessers_do(closed: Authenticator, clock: Clock) -> None:
    """From the guesser's own address, and to the account that is guessed at."""
    login(closed, username="alice")
    clock.now += 1_000  # what was right is not remembered as right any more, but it is no guess either
    for guess in range(10):
        refusal(closed, password=b"guess %d" % guess)
    assert refusal(closed, password=b"another guess") == 3
    assert login(closed) == Identity("alice", "phone")


def test_a_right_password_that_was_never_seen_gets_in_at_its_second_try(
    closed: Authenticator, clock: Clock, accounts: Accounts
) -> None:
    for guess in range(5):
        refusal(closed, password=b"guess %d" % guess)
    assert refusal(closed) == 3
    clock.now += 0.6
    assert login(closed) == Identity("alice", "phone")


def test_limits_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.bridge.logins.limits.MAX_ENTRIES", 2)
    limits = LoginLimits(1, 100)
    for last in range(3):
        limits.failed(f"192.0.2.{last}", "alice", 0)
    assert [limits.allows(f"192.0.2.{last}", "alice", 0) for last in range(3)] == [True, False, False]


def test_addresses_of_one_party_share_their_turns(closed: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    parties: list[str] = []

    async def run(address: str, digest: bytes, check: Verification) -> int:
        parties.append(address)
        raise NotYetError

    monkeypatch.setattr(closed._pool, "run", run)
    for address in ("2001:db8::1", "2001:db8::2", "192.0.2.1"):
        assert refusal(closed, address=address) == auth.UNAVAILABLE
    assert parties == ["2001:db8::/64", "2001:db8::/64", "192.0.2.1"]


def test_a_device_with_an_old_password_is_no_guesser(closed: Authenticator, hashing: Hashing, accounts: Accounts) -> None:
    """It goes on for hours, and its neighbours behind the same router are let in all the same."""
    for _ in range(10):
        assert refusal(closed, password=b"very old") == 4
    assert hashing.count == 1
    accounts.add("bob", "old secret")
    assert login(closed, username="bob") == Identity("bob", "phone")
    accounts.set_password("alice", "very old")
    assert login(closed, password=b"very old") == Identity("alice", "phone"), "what is wrong is wrong for one version only"


def test_who_hammers_waits_for_the_answers(closed: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that was looked at is answered at once; what costs the server nothing costs the client time, if it is much."""
    monkeypatch.setattr(limits, "HOLD_UP_S", 3600.0)
    monkeypatch.setattr(limits, "REFUSALS_PER_MINUTE", 2)

    async def scenario() -> None:
        async def attempt(password: bytes) -> None:
            await closed.login(Login("phone", "mallory", password, "192.0.2.1"))

        for guess in (b"1", b"2", b"3", b"1", b"4"):
            with pytest.raises(LoginRefused):
                await attempt(guess)
        held = [asyncio.ensure_future(attempt(guess)) for guess in (b"1", b"4")]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in held)
        for task in held:
            task.cancel()
        await asyncio.wait(held)

    asyncio.run(scenario())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_nobody_is_locked_out_behind_a_proxy_on_the_machine(closed: Authenticator, address: str) -> None:
    for number in range(10):
        assert refusal(closed, username="mallory", password=b"%d" % number, address=address) == 4
    assert login(closed, address=address) == Identity("alice", "phone")


def test_a_name_that_becomes_an_account_is_looked_at_anew(closed: Authenticator, accounts: Accounts) -> None:
    assert refusal(closed, username="bob") == 4
    accounts.add("bob", "old secret")
    assert login(closed, username="bob") == Identity("bob", "phone")


def test_wrong_passwords_do_not_drive_out_right_ones(
    closed: Authenticator, hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MAX_REMEMBERED_WRONG", 1)
    login(closed)
    for guess in (b"one", b"two", b"one"):
        assert refusal(closed, password=guess, address="192.0.2.2") == 4
    assert hashing.count == 4
    login(closed)
    assert hashing.count == 4


def test_a_password_may_look_like_a_token(closed: Authenticator, accounts: Accounts) -> None:
    accounts.set_password("alice", "mqim_secret")
    assert login(closed, password=b"mqim_secret") == Identity("alice", "phone")
    assert refusal(closed, password=b"mqim_other") == 4


def test_an_account_is_read_when_its_turn_has_come(
    closed: Authenticator, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands that come at once cost the loop next to nothing, and what counts is the password as it is then."""
    read: list[str] = []
    look_up = accounts.credentials

    def credentials(name: str) -> Credentials | None:
        read.append(name)
        return look_up(name)

    monkeypatch.setattr(accounts, "credentials", credentials)

    async def scenario() -> None:
        closed._pool._free, free = 0, closed._pool._free
        waiting = asyncio.ensure_future(closed.login(Login("phone", "alice", b"new secret", "192.0.2.1")))
        await asyncio.sleep(0)
        assert closed._pool.waiting == 1
        assert read == []
        accounts.set_password("alice", "new secret")
        closed._pool._free = free
        closed._pool._start_next()
        assert await waiting == Identity("alice", "phone")
        assert read == ["alice"]

    asyncio.run(scenario())


def test_what_was_found_for_somebody_who_hung_up_is_remembered(
    closed: Authenticator, hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    verify = passwords.verify_password

    def slow(password: bytes, password_hash: str) -> bool:
        return gate.wait(60) and verify(password, password_hash)

    monkeypatch.setattr(passwords, "verify_password", slow)

    async def scenario() -> None:
        gone = asyncio.ensure_future(closed.login(Login("phone", "alice", b"old secret", "192.0.2.1")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        [job] = closed._pool._jobs.values()
        gate.set()
        await asyncio.wait([job.future])
        assert await closed.login(Login("phone", "alice", b"old secret", "192.0.2.1")) == Identity("alice", "phone")

    asyncio.run(scenario())
    assert hashing.count == 1


def test_who_waits_too_long_is_told_to_come_back(closed: Authenticator) -> None:
    closed._pool._patience_s = 0.0
    assert refusal(closed) == auth.UNAVAILABLE


def test_a_full_pool_is_unavailable(closed: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.bridge.logins.password_pool.MAX_WAITING", 0)
    assert refusal(closed) == auth.UNAVAILABLE


def test_unreadable_accounts_are_unavailable(closed: Authenticator, accounts: Accounts) -> None:
    accounts.close()
    assert isinstance(accounts._reader, SqliteTables)
    accounts._reader.db.database = str(Path(accounts.where) / "accounts.db" / "gone")
    assert refusal(closed) == auth.UNAVAILABLE


class Unreachable:
    """Accounts in a database that says nothing: whoever asks waits for long."""

    shared = True
    asked = 0

    def catch_up(self, *_: object) -> None:
        self.asked += 1


def test_nobody_waits_for_a_database_that_is_known_not_to_answer() -> None:
    accounts = Unreachable()
    config = Config(auth=AuthConfig(mode="open"))
    away = True
    authenticator = Authenticator(config, cast(Any, accounts), Metrics(), away=lambda: away)
    with pytest.raises(LoginRefused) as refused:
        asyncio.run(authenticator.login(Login("alice:phone", "alice", None, "127.0.0.1")))
    assert (refused.value.code, accounts.asked) == (3, 0)
    away = False
    assert asyncio.run(authenticator.login(Login("alice:phone", "alice", None, "127.0.0.1"))).user == "alice"
    assert accounts.asked == 1
