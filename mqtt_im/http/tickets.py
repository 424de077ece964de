"""Tickets: a token's right to one thing, in a URL, for where no header can be sent (`EventSource`, `<img>`).

A ticket is a signed sentence and is kept nowhere. It is good for five minutes, or until the token that it was made with ends,
at every node, which share the key.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http import body
from mqtt_im.http.asgi import Scope
from mqtt_im.http.errors import Problem, unauthorized
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.who import Caller, address_of, caller_of, pay, problem_of
from mqtt_im.protocol.codec import encode_json
from mqtt_im.transport.api import Lease, LoginRefused

GOOD_MS: Final = 300_000
MAX_BYTES: Final = 1024
_FOR: Final = re.compile(r"events|files/[A-Za-z0-9_-]{1,128}")


class Wanted(msgspec.Struct):
    """What `ticket` is asked with."""

    goal: str = msgspec.field(name="for")


class _Ticket(msgspec.Struct, array_like=True):
    goal: str
    user: str
    by: str
    until: int
    """By the steady time, which is one for all nodes."""
    token: str
    expires: int | None


_decode: Final = msgspec.msgpack.Decoder(_Ticket).decode


class Tickets:
    """Makes tickets, and tells whose they are."""

    def __init__(self, desk: Desk, proxies: TrustedProxies) -> None:
        self._desk = desk
        self._proxies = proxies

    def routes(self) -> list[Route]:
        """Where they are made."""
        return [Route("/api/v1/ticket", self.make, methods=["POST"])]

    async def make(self, request: Request) -> Response:
        """A new ticket for the caller."""
        services = self._desk.open()
        caller = caller_of(services, request.scope, address_of(request.scope, self._proxies))
        await pay(services, caller.user)
        wanted: Wanted = await body.read_as(request.scope, request.receive, MAX_BYTES, Wanted)
        if not _FOR.fullmatch(wanted.goal):
            raise Problem("bad_field", 'for: expected "events" or "files/ID"')
        lease = caller.lease or Lease()
        ticket = _Ticket(wanted.goal, caller.user, caller.by, _steady(services) + GOOD_MS, lease.token, lease.expires)
        expires = _wall() + GOOD_MS
        if lease.expires is not None:
            expires = min(expires, lease.expires)
        fields = {"url": f"/api/v1/{wanted.goal}?ticket={_sign(services.ticket_key, ticket)}", "expires": expires}
        return Response(encode_json(fields), 201, {"Cache-Control": "no-store"}, "application/json")

    def address(self, scope: Scope) -> str:
        """The client's IP address."""
        return address_of(scope, self._proxies)

    async def caller(self, services: Services, scope: Scope, goal: str) -> Caller:
        """Who asks for this: by a ticket in the URL, else by the token in the header. Raises `Problem`."""
        address = address_of(scope, self._proxies)
        text = Request(scope).query_params.get("ticket")
        if text is None:
            return caller_of(services, scope, address)
        ticket = _read(services.ticket_key, text)
        if ticket is None:
            try:
                services.auth.failed(address)
                services.auth.hold_up(address)
            except LoginRefused as refused:
                raise problem_of(refused) from None
        if ticket is None or ticket.goal != goal or not await _holds(services, ticket):
            raise unauthorized("the ticket is none, is for something else, or has ended; make another")
        lease = Lease(ticket.token, ticket.expires) if ticket.token or ticket.expires is not None else None
        return Caller(ticket.user, False, lease, ticket.by)


def _sign(key: bytes, ticket: _Ticket) -> str:
    sentence = msgspec.msgpack.encode(ticket)
    return base64.urlsafe_b64encode(hmac.digest(key, sentence, "sha256")[:16] + sentence).rstrip(b"=").decode()


def _read(key: bytes, text: str) -> _Ticket | None:
    try:
        signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    if not hmac.compare_digest(hmac.digest(key, signed[16:], "sha256")[:16], signed[:16]):
        return None
    return _decode(signed[16:])


async def _holds(services: Services, ticket: _Ticket) -> bool:
    """Whether the ticket and the token that it was made with are still good. Raises `StoreError`."""
    if ticket.until <= _steady(services) or (ticket.expires is not None and ticket.expires <= _wall()):
        return False
    if not ticket.token:
        return True
    has_token = services.accounts.has_token
    if services.accounts.shared:  # it may have been used at other nodes alone, so that the event loop does not know of it
        return await asyncio.to_thread(has_token, ticket.user, ticket.token)
    return has_token(ticket.user, ticket.token)


def _steady(services: Services) -> int:
    return services.bridge.ledger.clock.steady()


def _wall() -> int:
    return time.time_ns() // 1_000_000
