"""Who a connection is (PROTOCOL §2): names from the CONNECT packet, passwords against the accounts.

Nothing here touches a session. A wrong login costs the one who makes it: passwords are hashed in `password_pool`, in turn
for each address, and an address that fails too often is not listened to for a while (`login_limits`). A password that was
right is remembered for some minutes as a keyed hash, so that a reconnect costs microseconds; a changed password, or a
removed account, voids that at once.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from mqtt_im.bridge.login_limits import LoginLimits
from mqtt_im.bridge.password_pool import PasswordPool, PoolFullError
from mqtt_im.config import Config
from mqtt_im.logs import RateLimited
from mqtt_im.metrics import Metrics
from mqtt_im.protocol import names
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store import passwords
from mqtt_im.store.accounts import Accounts, Credentials
from mqtt_im.transport.api import Identity, Login, LoginRefused

UNAVAILABLE = 3
BAD_CREDENTIALS = 4
NOT_AUTHORISED = 5
MAX_REMEMBERED = 100_000

log = logging.getLogger(__name__)


class _Remembered(NamedTuple):
    digest: bytes
    version: int
    until: float


class Authenticator:
    """Answers logins. `accounts` is None in open mode, where every name is a user."""

    def __init__(
        self,
        config: Config,
        accounts: Accounts | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._metrics = metrics
        self._clock = clock
        self._pool = PasswordPool()
        self._limits = LoginLimits(config.limits.failed_logins_per_minute)
        self._cache_s = config.auth.credential_cache_s
        self._cache_key = secrets.token_bytes(32)
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._log = RateLimited(log, on_suppressed=lambda: metrics.count("log_lines_suppressed"))

    async def login(self, login: Login) -> Identity:
        """Who this is. Raises `LoginRefused` with 4 (wrong name or password), 5 (not authorised) or 3 (unavailable)."""
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

    def reload(self, config: Config) -> None:
        """Take over what may change while the server runs."""
        self._limits.failures_per_minute = config.limits.failed_logins_per_minute
        self._cache_s = config.auth.credential_cache_s

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.close()

    async def _identify(self, login: Login) -> Identity:
        if login.username is not None and not names.is_user(login.username):
            raise LoginRefused(BAD_CREDENTIALS, "the username is no user id")
        if login.certificate_user is not None:
            user = self._certified(login, login.certificate_user)
        elif self._accounts is None:
            if login.username is None:
                return named_by_client_id(login.client_id)
            user = login.username
        elif login.username is None:
            raise LoginRefused(NOT_AUTHORISED, "no username")
        else:
            user = login.username
            await self._check_password(self._accounts, user, login.password, login.address)
        return Identity(user, device_of(user, login.client_id))

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
        digest = self._digest(user, password)
        if version is not None and self._remembers(user, digest, version):
            self._limits.succeeded(address, user, self._clock())
            return
        credentials = accounts.credentials(user) if version is not None else None
        if credentials is None or not self._is_token(password, credentials):
            await self._hash(user, password, digest, credentials, address)
            # The account may have changed while the hash was computed.
            if credentials is not None and accounts.version(user) != credentials.version:
                raise LoginRefused(BAD_CREDENTIALS, "the account changed meanwhile")
        self._limits.succeeded(address, user, self._clock())

    async def _hash(self, user: str, password: bytes, digest: bytes, credentials: Credentials | None, address: str) -> None:
        """Return where the password is the account's. Takes as long where there is no such account."""
        known = credentials is not None and len(password) <= passwords.MAX_PASSWORD_BYTES
        password_hash = credentials.password_hash if credentials is not None else None

        def work() -> bool:
            return passwords.verify_password(
                password[: passwords.MAX_PASSWORD_BYTES], passwords.decoy_hash() if password_hash is None else password_hash
            )

        def wanted() -> bool:
            return self._limits.allows(address, user, self._clock())

        if not wanted():
            raise LoginRefused(UNAVAILABLE, "too many failed logins from this address")
        try:
            right = await self._pool.run(address, work, wanted)
        except PoolFullError:
            raise LoginRefused(UNAVAILABLE, "too many logins at once") from None
        if right is None:
            raise LoginRefused(UNAVAILABLE, "too many failed logins from this address")
        if not (right and known):
            self._limits.failed(address, user, self._clock())
            raise LoginRefused(BAD_CREDENTIALS, "wrong username or password")
        if credentials is not None:
            self._remember(user, _Remembered(digest, credentials.version, self._clock() + self._cache_s))

    def _is_token(self, password: bytes, credentials: Credentials) -> bool:
        if not credentials.tokens or len(password) > passwords.MAX_PASSWORD_BYTES:
            return False
        return passwords.token_digest(password) in credentials.tokens

    def _digest(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._cache_key, user.encode() + b"\0" + password, "sha256")

    def _remembers(self, user: str, digest: bytes, version: int) -> bool:
        entry = self._remembered.get(user)
        if entry is None:
            return False
        if entry.version != version or entry.until <= self._clock():
            del self._remembered[user]
            return False
        return hmac.compare_digest(entry.digest, digest)

    def _remember(self, user: str, entry: _Remembered) -> None:
        self._remembered[user] = entry
        self._remembered.move_to_end(user)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


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
