"""`push.subscribe` and `push.unsubscribe`: a browser wants to be told of what comes while it is not connected, or no longer."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.core import costs
from mqtt_im.hooks.subscriptions import Subscription, Subscriptions, origin_of
from mqtt_im.http import body
from mqtt_im.http.errors import Problem
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.who import address_of, caller_of, pay
from mqtt_im.protocol.names import is_device

MAX_BYTES: Final = 8192


class Keys(msgspec.Struct):
    """What content is encrypted with, as `PushSubscription.toJSON()` has it."""

    p256dh: str
    auth: str


class BrowserSubscription(msgspec.Struct):
    """A browser's `PushSubscription`."""

    endpoint: str
    keys: Keys


class Subscribe(msgspec.Struct):
    """The map of `push.subscribe`."""

    device: str
    subscription: BrowserSubscription


class Unsubscribe(msgspec.Struct):
    """The map of `push.unsubscribe`."""

    device: str


class WebPushRoutes:
    """Answers both, with `{}`."""

    def __init__(self, desk: Desk, proxies: TrustedProxies) -> None:
        self._desk = desk
        self._proxies = proxies

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/api/v1/push.subscribe", self.subscribe, methods=["POST"]),
            Route("/api/v1/push.unsubscribe", self.unsubscribe, methods=["POST"]),
        ]

    async def subscribe(self, request: Request) -> Response:
        """The device is told from now on; what it had subscribed before is replaced."""
        services = self._desk.open()
        user, table = await self._whose(services, request)
        given: Subscribe = await body.read_as(request.scope, request.receive, MAX_BYTES, Subscribe)
        endpoint, keys = given.subscription.endpoint, given.subscription.keys
        _check_device(given.device)
        try:
            origin_of(endpoint, services.config.webpush.services)
        except ValueError as error:
            raise Problem("bad_field", f"subscription.endpoint: {error}") from None
        from mqtt_im.hooks.encryption import check_keys  # see `hooks.webpush`

        try:
            check_keys(keys.p256dh, keys.auth)
        except ValueError as error:
            raise Problem("bad_field", f"subscription.keys.{error}: not what a browser makes") from None
        kept = Subscription(user, given.device, endpoint, keys.p256dh, keys.auth)
        with self._desk:
            await asyncio.to_thread(table.put, kept, time.time_ns() // 1_000_000)
        return JSONResponse({}, headers={"Cache-Control": "no-store"})

    async def unsubscribe(self, request: Request) -> Response:
        """The device is told nothing any more."""
        services = self._desk.open()
        user, table = await self._whose(services, request)
        given: Unsubscribe = await body.read_as(request.scope, request.receive, MAX_BYTES, Unsubscribe)
        _check_device(given.device)
        with self._desk:
            await asyncio.to_thread(table.remove, user, given.device)
        return JSONResponse({}, headers={"Cache-Control": "no-store"})

    async def _whose(self, services: Services, request: Request) -> tuple[str, Subscriptions]:
        caller = caller_of(services, request.scope, address_of(request.scope, self._proxies))
        table = services.webpush.subscriptions
        if table is None:
            raise Problem("not_found", "this server has no Web Push (webpush.contact)")
        await pay(services, caller.user, costs.FILE)
        return caller.user, table


def _check_device(device: str) -> None:
    if not is_device(device):
        raise Problem("bad_field", "device: a device id is 1 to 64 of A-Z a-z 0-9 _ . -")
