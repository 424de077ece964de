"""`login` and `logout`: a token for a password."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.accounts.passwords import MAX_PASSWORD_BYTES
from mqtt_im.config.peers import network_of
from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http import body
from mqtt_im.http.errors import Problem, too_fast
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.who import address_of, caller_of, problem_of
from mqtt_im.protocol.codec import encode_json
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.protocol.names import is_user
from mqtt_im.transport.api import LoginRefused

log = logging.getLogger(__name__)

MAX_BYTES: Final = 8192
MIN_PASSWORD: Final = 8
MAX_ADDRESSES: Final = 20_000
DAY_MS: Final = 86_400_000


class Credentials(msgspec.Struct):
    """What `login` and `register` are asked with."""

    user: str
    password: str | None = None


class Hourly:
    """A bucket of registrations for each address, refilled over an hour; memory is bounded, the longest unseen go first."""

    def __init__(self, per_hour: int) -> None:
        self._cost = 3600.0 / per_hour
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """Let one through and return 0, or return the seconds after which to try again."""
        paid = max(self._paid_until.get(address, now), now)
        if paid + self._cost > now + 3600.0 + 1e-6:
            return paid + self._cost - now - 3600.0
        self._paid_until[address] = paid + self._cost
        self._paid_until.move_to_end(address)
        if len(self._paid_until) > MAX_ADDRESSES:
            self._paid_until.popitem(last=False)
        return 0.0


class Logins:
    """Answers `login` and `logout`."""

    def __init__(self, desk: Desk, proxies: TrustedProxies) -> None:
        self._desk = desk
        self._proxies = proxies
        self._registrations: Hourly | None = None

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/api/v1/login", self.login, methods=["POST"]),
            Route("/api/v1/logout", self.logout, methods=["POST"]),
            Route("/api/v1/register", self.register, methods=["POST"]),
        ]

    async def login(self, request: Request) -> Response:
        """A new token of the user whose password this is."""
        services = self._desk.open()
        if services.config.auth.mode == "jwt":
            raise Problem("forbidden", "tokens come from elsewhere here (auth.mode is jwt)")
        given = await read_credentials(request)
        with self._desk:
            try:
                await services.auth.check_password(given.user, given.password, address_of(request.scope, self._proxies))
            except LoginRefused as refused:
                raise problem_of(refused) from None
            return await new_session(services, given.user, 200)

    async def register(self, request: Request) -> Response:
        """A new account, and a token of it."""
        services = self._desk.open()
        auth = services.config.auth
        if not auth.registration or auth.mode != "accounts":
            raise Problem("forbidden", "accounts are made by the operator here (auth.registration is off)")
        given = await read_credentials(request)
        if given.password is None or len(given.password) < MIN_PASSWORD:
            raise Problem("bad_field", f"password: at least {MIN_PASSWORD} characters")
        if len(given.password.encode()) > MAX_PASSWORD_BYTES:
            raise Problem("bad_field", f"password: at most {MAX_PASSWORD_BYTES} bytes")
        if self._registrations is None:
            self._registrations = Hourly(auth.registrations_per_hour)
        # What fails counts too: else everybody could look up which names there are.
        wait = self._registrations.take(network_of(address_of(request.scope, self._proxies)), time.monotonic())
        if wait:
            raise too_fast("too many accounts were made from this address; try again later", wait)
        with self._desk:
            if services.accounts.exists(given.user) or await services.has_inbox(given.user):
                raise Problem("conflict", f"user: the name {given.user} is taken")
            try:
                await asyncio.to_thread(services.accounts.add, given.user, given.password)
            except MqttImError as error:
                if error.code != "exists":
                    raise
                raise Problem("conflict", f"user: the name {given.user} is taken") from None
            log.info("account registered", extra={"user": given.user, "address": address_of(request.scope, self._proxies)})
            return await new_session(services, given.user, 201)

    async def logout(self, request: Request) -> Response:
        """The token is good for nothing any more, and the connections that use it are closed."""
        services = self._desk.open()
        caller = caller_of(services, request.scope, address_of(request.scope, self._proxies))
        if caller.lease is None or not caller.lease.token:
            raise Problem("forbidden", "this token was not made by a login and can't be ended by a logout")
        with self._desk:
            try:
                await asyncio.to_thread(services.accounts.revoke, caller.user, caller.lease.token)
                services.act()
            except MqttImError as error:
                if error.code != "not_found":  # somebody else has ended it meanwhile
                    raise
        return Response(status_code=204)


async def read_credentials(request: Request) -> Credentials:
    """The user and password in a body. Raises `Problem`."""
    given: Credentials = await body.read_as(request.scope, request.receive, MAX_BYTES, Credentials)
    if not is_user(given.user):
        raise Problem("bad_field", "user: a user id is 1 to 64 of A-Z a-z 0-9 _ . -")
    return given


async def new_session(services: Services, user: str, status: int) -> Response:
    """Answer with a new token of the user. Raises `Problem`."""
    days = services.config.auth.session_days
    expires = time.time_ns() // 1_000_000 + days * DAY_MS if days else None
    accounts = services.accounts
    account = services.config.auth.mode == "accounts"
    try:
        text, token = await asyncio.to_thread(accounts.make_token, user, "login", expires, session=True, account=account)
    except StoreError:
        raise
    except MqttImError as error:
        raise Problem("forbidden", error.message) from None
    fields = {"user": user, "token": text, "expires": token.expires}
    return Response(encode_json(fields), status, {"Cache-Control": "no-store"}, "application/json")
