"""Who a connection is (PROTOCOL §2): names from the CONNECT packet, passwords against the accounts.

Nothing here touches a session. A wrong login costs the one who makes it: passwords are hashed in `password_pool`, in turn
for each address, and an address that fails too often is not listened to for a while (`limits`). Passwords that were
right or wrong are remembered for some minutes as keyed hashes (`verdicts`), so that a reconnect costs microseconds and a
device that goes on with an old password is no guesser; a changed password, or a removed account, voids that at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqtt_im.accounts import passwords
from mqtt_im.accounts.models import Credentials, Token
from mqtt_im.accounts.table import Accounts
from mqtt_im.config import Config
from mqtt_im.config.peers import network_of
from mqtt_im.logs import RateLimited
from mqtt_im.metrics import Metrics
from mqtt_im.protocol import names
from mqtt_im.protocol.errors import StoreError
from mqtt_im.shares import Bounds
from mqtt_im.transport.api import Identity, Lease, Login, LoginRefused

from .http import HttpLogins, NoAnswer
from .limits import LoginLimits
from .password_pool import NotYetError, PasswordPool, Place, PoolFullError, Standing
from .signed import Claims, WrongToken
from .verdicts import Verdicts

if TYPE_CHECKING:
    from .jwts import JwtVerifier

UNAVAILABLE = 3
BAD_CREDENTIALS = 4
NOT_AUTHORISED = 5

log = logging.getLogger(__name__)


def _verifier(config: Config) -> JwtVerifier:
    from .jwts import JwtVerifier  # with all that verifies signatures: 7 MB

    return JwtVerifier(config.auth.jwt)


class _HeldUp(LoginRefused):
    """A refusal that has cost nothing, so many of them are held up."""


class TooManyFailures(_HeldUp):
    """So many logins have failed that this one is not looked at."""


@dataclass(slots=True)
class _Check:
    """One password on its way through the pool. Takes as long where there is no such account."""

    user: str
    password: bytes
    digest: bytes
    address: str
    accounts: Accounts
    limits: LoginLimits
    memory: Verdicts
    clock: Callable[[], float]
    known: bool
    """It was right before: how many others were wrong does not matter."""
    back: bool = False
    """It may be looked at all the same, as a first try or as one that has come back."""
    credentials: Credentials | None = None

    def permit(self) -> None:
        """Raises where so many passwords from there, or for this account, were wrong that no more are looked at."""
        if not self.known and not self.back and not self.limits.allows(self.address, self.user, self.clock()):
            raise TooManyFailures(UNAVAILABLE, "too many failed logins", busy=True)

    def enter(self) -> None:
        """The same before it waits for its turn; but one that was refused so and comes back is looked at."""
        try:
            self.permit()
        except TooManyFailures:
            now = self.clock()
            if not (
                self.limits.first_try(self.address, self.user, now)
                or self.limits.comes_back(self.address, self.user, self.digest, now)
            ):
                raise
            self.back = True

    def place(self) -> Place:
        """Users who are known wait in turn for each user, and everybody else in turn for each address."""
        self.permit()
        if self.known or self.limits.knows(self.address, self.user, self.clock()):
            return Place(Standing.KNOWN, self.user)
        suspect = self.limits.suspects(self.address, self.clock())
        return Place(Standing.SUSPECT if suspect else Standing.NEW, network_of(self.address))

    def begin(self) -> Callable[[], bool]:
        """What to compute, with the account as it is now."""
        self.credentials = credentials = self.accounts.credentials(self.user)
        password = self.password[: passwords.MAX_PASSWORD_BYTES]

        def work() -> bool:
            return passwords.verify_password(password, credentials.password_hash if credentials else passwords.decoy_hash())

        return work

    def end(self, right: bool) -> int:
        """The version of the account whose password it is. What was found is remembered, whoever still waits for it."""
        version = self.credentials.version if self.credentials is not None else None
        right = right and len(self.password) <= passwords.MAX_PASSWORD_BYTES
        self.memory.note(self.user, self.digest, version, right=right and version is not None)
        if version is None or not right:
            self.limits.failed(self.address, self.user, self.clock())
            raise LoginRefused(BAD_CREDENTIALS, "wrong username or password")
        return version


class Authenticator:
    """Answers logins. `accounts` keeps the tokens too; outside of the mode `accounts` every name is a user."""

    def __init__(
        self,
        config: Config,
        accounts: Accounts | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        """`away` says whether the database does not answer, where the accounts are in one: nobody is kept waiting for it then."""
        self._away = away
        self._accounts = accounts if config.auth.mode == "accounts" else None
        self._tokens = accounts
        self._metrics = metrics
        self._clock = clock
        self._pool = PasswordPool()
        limits, bounds = config.limits, Bounds(config.limits.memory_mb)
        self._limits = LoginLimits(limits.failed_logins_per_minute, limits.failed_logins_per_minute_per_account, bounds)
        self._memory = Verdicts(config.auth.credential_cache_s, clock, bounds)
        self._jwt = _verifier(config) if config.auth.mode == "jwt" else None
        self._http = HttpLogins(config.auth.http, bounds) if config.auth.mode == "http" else None
        self._log = RateLimited(log, on_suppressed=lambda: metrics.count("log_lines_suppressed"))

    async def login(self, login: Login) -> Identity:
        """Who this is. Raises `LoginRefused` with 4 (wrong name or password), 5 (not authorised) or 3 (unavailable).

        A connection that hangs up meanwhile should cancel it, so that its password is not hashed for nothing.
        """
        try:
            await self.catch_up(login.username, login.password)
            return await self._login(login)
        except _HeldUp:
            seconds = self._limits.hold_up(login.address, self._clock())
            if seconds and login.protocol == "http":  # which has a word for it
                raise TooManyFailures(UNAVAILABLE, "too many failed logins", busy=True) from None
            await asyncio.sleep(seconds)
            raise

    async def catch_up(self, user: str | None, secret: bytes | None) -> None:
        """What this login is checked against was read anew, where other servers may have changed it. Raises `LoginRefused`."""
        tokens = self._tokens
        if tokens is None or not tokens.shared:
            return
        token = secret if secret is not None and passwords.may_be_token(secret) else None
        try:
            if self._away():
                raise StoreError("the database does not answer")
            await asyncio.to_thread(tokens.catch_up, user, token)
        except StoreError as error:
            self._metrics.count("logins", result="unavailable")
            raise LoginRefused(UNAVAILABLE, "the accounts can't be read") from error

    async def check_password(self, user: str, password: str | None, address: str) -> None:
        """Return where a user may log in with this password, over HTTP. Raises `LoginRefused` as `login` does."""
        given = None if password is None else password.encode(errors="replace")
        await self.login(Login(user, user, given, address, protocol="http"))

    def bearer(self, token: bytes, address: str) -> tuple[str, Lease]:
        """The user whose token this is. Raises `LoginRefused` with 4 (none, or one that has expired), or `TooManyFailures`."""
        try:
            return self._bearer(token, address)
        except LoginRefused as refused:
            if refused.code == BAD_CREDENTIALS:
                self.hold_up(address)
            raise

    def hold_up(self, address: str) -> None:
        """Raise `TooManyFailures` where a wrong token is one of too many, be they the same one or come from this machine."""
        if self._limits.hold_up(address, self._clock()):
            raise TooManyFailures(UNAVAILABLE, "too many wrong tokens", busy=True)

    def _bearer(self, token: bytes, address: str) -> tuple[str, Lease]:
        try:
            found = self._token(token)
        except StoreError as error:
            raise LoginRefused(UNAVAILABLE, "the tokens can't be read") from error
        if found is not None:
            return found.user, Lease(found.id, found.expires)
        if self._jwt is not None:
            claims = self._signed(self._jwt, token, None, address)
            return claims.user, Lease(expires=claims.expires)
        digest = self._memory.digest("", token)
        if self._memory.verdict("", digest, 0) is None:
            self.failed(address)
            self._memory.note("", digest, 0, right=False)
        raise LoginRefused(BAD_CREDENTIALS, "a wrong token, or one that has expired")

    def failed(self, address: str) -> None:
        """Count a token that was never seen and is wrong. Raises `TooManyFailures` where there were too many."""
        now = self._clock()
        if not self._limits.allows(address, "", now):
            raise TooManyFailures(UNAVAILABLE, "too many failed logins", busy=True)
        self._limits.failed(address, "", now)
        self._metrics.count("logins", result="refused")

    def _signed(self, verifier: JwtVerifier, token: bytes | None, user: str | None, address: str) -> Claims:
        """What a signed token says. Raises `LoginRefused`."""
        digest = self._memory.digest(user or "", token or b"")
        if self._memory.verdict(user or "", digest, 0) is False:
            raise _HeldUp(BAD_CREDENTIALS, "a wrong token, again")
        self._admit(address, user or "")
        try:
            if token is None:
                raise WrongToken("no token as the password")
            claims = verifier.verify(token, user)
        except WrongToken as wrong:
            self._limits.failed(address, user or "", self._clock())
            self._memory.note(user or "", digest, 0, right=False)
            raise LoginRefused(BAD_CREDENTIALS, str(wrong)) from None
        self._limits.succeeded(address, claims.user, self._clock())
        return claims

    def _admit(self, address: str, user: str) -> None:
        """Raises where so many logins from there, or of this user, were wrong that no more are looked at."""
        now = self._clock()
        if not (self._limits.allows(address, user, now) or self._limits.first_try(address, user, now)):
            raise TooManyFailures(UNAVAILABLE, "too many failed logins")

    async def _asked(self, logins: HttpLogins, user: str, login: Login) -> None:
        """Return where the other system allows the login. Raises `LoginRefused`."""
        self._admit(login.address, user)
        password = None if login.password is None else login.password.decode(errors="replace")
        try:
            allowed = await logins.allows(user, password, login.client_id, login.address, login.protocol)
        except NoAnswer as failure:
            raise LoginRefused(UNAVAILABLE, f"auth.http.url: {failure}") from None
        if not allowed:
            self._limits.failed(login.address, user, self._clock())
            raise LoginRefused(BAD_CREDENTIALS, "auth.http.url has refused it")
        self._limits.succeeded(login.address, user, self._clock())

    def _token(self, token: bytes) -> Token | None:
        if self._tokens is None or not passwords.may_be_token(token):
            return None
        return self._tokens.token(token)

    async def _login(self, login: Login) -> Identity:
        start = self._clock()
        try:
            identity = await self._identify(login)
        except LoginRefused as refused:
            self._metrics.count("logins", result="unavailable" if refused.code == UNAVAILABLE else "refused")
            self._log.info("login refused", user=login.username, address=login.address, reason=refused.reason)
            raise
        except StoreError as error:
            self._metrics.count("logins", result="unavailable")
            self._log.warning("login failed: the accounts can't be read", address=login.address, reason=error.message)
            raise LoginRefused(UNAVAILABLE, "the accounts can't be read") from error
        finally:
            self._metrics.observe("login_seconds", self._clock() - start)
        self._metrics.count("logins", result="accepted")
        return identity

    def renewed(self, config: Config) -> Callable[[], None]:
        """Read what may change while the server runs; what is returned takes it over. Raises `MqttImError`."""
        verifier = None if self._jwt is None else _verifier(config)

        def swap() -> None:
            self._limits.failures_per_minute = config.limits.failed_logins_per_minute
            self._limits.failures_per_account = config.limits.failed_logins_per_minute_per_account
            self._memory.seconds = config.auth.credential_cache_s
            if verifier is not None:
                self._jwt = verifier
                self._memory.forget_wrong()

        return swap

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.close()
        if self._http is not None:
            self._http.close()

    async def _identify(self, login: Login) -> Identity:
        if login.username is not None and not names.is_user(login.username):
            raise LoginRefused(BAD_CREDENTIALS, "the username is no user id")
        lease: Lease | None = None
        if login.certificate_user is not None:
            user = self._certified(login, login.certificate_user)
        elif self._jwt is not None:
            return self._by_jwt(self._jwt, login)
        elif login.username is None and self._accounts is None and self._http is None:
            return named_by_client_id(login.client_id)
        elif login.username is None:
            raise LoginRefused(NOT_AUTHORISED, "no username")
        else:
            user = login.username
            found = None if login.password is None else self._token(login.password)
            if found is not None and found.user == user:
                lease = Lease(found.id, found.expires)
                self._limits.succeeded(login.address, user, self._clock())
            elif self._http is not None:
                await self._asked(self._http, user, login)
            elif self._accounts is not None:
                await self._check_password(self._accounts, user, login.password, login.address)
        return Identity(user, device_of(user, login.client_id), lease)

    def _by_jwt(self, verifier: JwtVerifier, login: Login) -> Identity:
        found = None if login.password is None else self._token(login.password)
        if found is not None and login.username in (None, found.user):
            return Identity(found.user, device_of(found.user, login.client_id), Lease(found.id, found.expires))
        claims = self._signed(verifier, login.password, login.username, login.address)
        return Identity(claims.user, device_of(claims.user, login.client_id), Lease(expires=claims.expires))

    def _certified(self, login: Login, user: str) -> str:
        """The user of a verified certificate, who needs no password, but in accounts mode an account."""
        if not names.is_user(user):
            raise LoginRefused(NOT_AUTHORISED, "the certificate's CN is no user id")
        if login.username not in (None, user):
            raise LoginRefused(BAD_CREDENTIALS, "the username is not the certificate's CN")
        if self._accounts is not None and self._accounts.version(user) is None:
            raise LoginRefused(NOT_AUTHORISED, "no account for the certificate's CN")
        return user

    async def _check_password(self, accounts: Accounts, user: str, password: bytes | None, address: str) -> None:
        if password is None:
            raise LoginRefused(BAD_CREDENTIALS, "no password")
        version = accounts.version(user)
        digest = self._memory.digest(user, password)
        right = self._memory.verdict(user, digest, version)
        if right is False:
            raise _HeldUp(BAD_CREDENTIALS, "wrong username or password, again")
        if not right:
            known = self._memory.was_right(user, digest, version)
            check = _Check(user, password, digest, address, accounts, self._limits, self._memory, self._clock, known)
            check.enter()
            try:
                verified = await self._pool.run("" if known else network_of(address), digest, check)
            except NotYetError:
                raise LoginRefused(UNAVAILABLE, "too many logins at once: it is being looked at", busy=True) from None
            except PoolFullError:
                raise _HeldUp(UNAVAILABLE, "too many logins at once", busy=True) from None
            # The account may have changed while the hash was computed.
            if accounts.version(user) != verified:
                raise LoginRefused(BAD_CREDENTIALS, "the account changed meanwhile")
        self._limits.succeeded(address, user, self._clock())


def device_of(user: str, client_id: str) -> str | None:
    """The device that a client id names for a user: `phone` or `alice:phone`; None for a plain MQTT client."""
    device = client_id.removeprefix(f"{user}:")
    return device if names.is_device(device) else None


def named_by_client_id(client_id: str) -> Identity:
    """Who a client without a username is in open mode: `alice:phone`, or `alice` for user and device; else nobody."""
    user, colon, device = client_id.partition(":")
    if not colon:
        device = user
    if names.is_user(user) and names.is_device(device):
        return Identity(user, device)
    return Identity(None, None)
