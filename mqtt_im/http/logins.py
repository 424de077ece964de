"""`login` and `logout`: a token for a password."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http import body
from mqtt_im.http.errors import Problem
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.who import address_of, caller_of, problem_of
from mqtt_im.protocol.codec import encode_json
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.protocol.names import is_user
from mqtt_im.transport.api import LoginRefused

MAX_BYTES: Final = 8192
DAY_MS: Final = 86_400_000


class Credentials(msgspec.Struct):
    """What `login` and `register` are asked with."""

    user: str
    password: str | None = None


class Logins:
    """Answers `login` and `logout`."""

    def __init__(self, desk: Desk, proxies: TrustedProxies) -> None:
        self._desk = desk
        self._proxies = proxies

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/api/v1/login", self.login, methods=["POST"]),
            Route("/api/v1/logout", self.logout, methods=["POST"]),
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

    async def logout(self, request: Request) -> Response:
        """The token is good for nothing any more, and the connections that use it are closed."""
        services = self._desk.open()
        caller = caller_of(services, request.scope, address_of(request.scope, self._proxies))
        if caller.lease is None or not caller.lease.token:
            raise Problem("forbidden", "this token was not made by a login and can't be ended by a logout")
        with self._desk:
            try:
                await asyncio.to_thread(services.accounts.revoke, caller.user, caller.lease.token)
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
