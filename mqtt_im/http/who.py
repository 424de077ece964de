"""Who asks: the token of a request, the user in whose name it is made, and the address that it comes from."""

from __future__ import annotations

import asyncio
import hmac
from typing import NamedTuple

from mqtt_im.bridge.logins.auth import BAD_CREDENTIALS, TooManyFailures
from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http.asgi import Scope, header, headers
from mqtt_im.http.errors import Problem, too_fast, unauthorized, unavailable
from mqtt_im.http.services import Desk, Services
from mqtt_im.protocol.names import is_user
from mqtt_im.transport.api import Lease, LoginRefused

_PATIENCE_S = 1.0
"""So long a request that comes too fast is held up before it is refused."""
RETRY_S = 60.0
"""After so many seconds an address may have another failed login."""


class Caller(NamedTuple):
    """Who makes a request."""

    user: str
    """Empty for the operator, who acts as nobody."""
    admin: bool
    lease: Lease | None
    by: str
    """For the log: the user, or `admin`."""


def address_of(scope: Scope, proxies: TrustedProxies) -> str:
    """The client's IP address."""
    peer = scope["client"][0] if scope.get("client") else ""
    return proxies.client(peer, headers(scope, b"x-forwarded-for")) if proxies else peer


def token_of(scope: Scope) -> str:
    """The bearer token (RFC 6750). Raises `unauthorized`."""
    given = header(scope, b"authorization")
    if given is None:
        raise unauthorized("a token is needed: Authorization: Bearer …")
    scheme, _, token = given.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("the header Authorization must be: Bearer, and a token")
    return token


async def read_anew(desk: Desk, scope: Scope) -> None:
    """The token of this request was looked up, where other servers may have made it. Raises `Problem`."""
    if header(scope, b"authorization") is None:
        return
    services, token = desk.open(), token_of(scope).encode("latin-1")
    if services.accounts.is_known(token):
        return
    try:
        await services.auth.catch_up(None, token)
    except LoginRefused as refused:
        raise problem_of(refused) from None


def caller_of(services: Services, scope: Scope, address: str, *, acting: bool = True) -> Caller:
    """Who makes this request. `acting`: in a user's name, which the operator must give. Raises `Problem`."""
    token = token_of(scope)
    named = header(scope, b"x-act-as")
    configured = services.config.auth.admin_token
    if configured and hmac.compare_digest(token.encode("latin-1"), configured.encode()):
        if not acting:
            return Caller("", True, None, "admin")
        if named is None:
            raise Problem("bad_field", "X-Act-As: the admin token makes requests in a user's name, which this header gives")
        if not is_user(named) or not knows(services, named):
            raise Problem("not_found", f"X-Act-As: there is no user {named!r}")
        return _known(scope, Caller(named, True, None, "admin"))
    try:
        user, lease = services.auth.bearer(token.encode("latin-1"), address)
    except LoginRefused as refused:
        raise problem_of(refused) from None
    if named is not None and acting:
        raise Problem("forbidden", "X-Act-As: only the admin token may act as somebody else")
    return _known(scope, Caller(user, False, lease, user))


def _known(scope: Scope, caller: Caller) -> Caller:
    """What comes of the request counts as the user's from now on, whom a proxy may share its address with others with."""
    scope["mqtt_im.connection"].party = f"user {caller.user}"
    return caller


async def pay(services: Services, user: str, units: float = 1.0) -> None:
    """The user has paid for a request, after a moment where the rate is used up. Raises `rate_limited`."""
    wait = services.transport.spend(user)
    if wait:
        await asyncio.sleep(min(wait, _PATIENCE_S))
        wait = services.transport.spend(user)
    if wait:
        services.metrics.count("refusals", code="rate_limited")
        rate = services.config.limits.requests_per_second
        raise too_fast(f"more than {rate} requests a second; send it again later", wait)
    if units > 1:
        services.transport.charge(user, units - 1)


def knows(services: Services, user: str) -> bool:
    """Whether there is such an account; in the modes without accounts every name is a user."""
    return services.config.auth.mode != "accounts" or services.accounts.exists(user)


def problem_of(refused: LoginRefused) -> Problem:
    """What a refused login is over HTTP."""
    if isinstance(refused, TooManyFailures):
        return too_fast(refused.reason, RETRY_S)
    if refused.code == BAD_CREDENTIALS or refused.code > BAD_CREDENTIALS:
        return unauthorized(refused.reason)
    return unavailable(refused.reason)
