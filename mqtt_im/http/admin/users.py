"""Accounts, their tokens and their devices."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.accounts.passwords import make_password
from mqtt_im.bridge.calls import new_id
from mqtt_im.http.admin.guard import Guard, after_of, answer, limit_of, note, nothing, page, read, user_of
from mqtt_im.http.errors import Problem, unavailable
from mqtt_im.http.services import Services
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.names import is_user
from mqtt_im.store.queries import belongings

log = logging.getLogger(__name__)

DAY_MS: Final = 86_400_000


class NewUser(msgspec.Struct):
    """What `POST users` is asked with."""

    user: str
    password: str | None = None


class NewPassword(msgspec.Struct):
    """What `PUT password` is asked with."""

    password: str


class NewToken(msgspec.Struct):
    """What `POST tokens` is asked with."""

    name: str
    days: float | None = None


class Users:
    """Answers what concerns one user, or all."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def routes(self) -> list[Route]:
        """Where they are."""
        route = self._guard.route
        return [
            *route("users", get=self.all, post=self.add),
            *route("users/{user}", get=self.one, delete=self.remove),
            *route("users/{user}/password", put=self.password),
            *route("users/{user}/tokens", get=self.tokens, post=self.add_token),
            *route("users/{user}/tokens/{token}", delete=self.revoke),
            *route("users/{user}/devices", get=self.devices),
            *route("users/{user}/devices/{device}", delete=self.forget),
            *route("users/{user}/disconnect", post=self.disconnect),
        ]

    async def all(self, services: Services, request: Request) -> Response:
        """The accounts by name; in other modes who has an inbox."""
        limit, after = limit_of(services, request), after_of(request)
        if services.config.auth.mode == "accounts":
            accounts = await asyncio.to_thread(services.accounts.some, after, limit + 1)
            created = {account.name: account.created for account in accounts}
            names = list(created)
        else:
            names = await services.bridge.ledger.call(lambda engine: engine.state.user_names(after, limit + 1))
            created = {}
        told = await _told(services, names, created)
        return page("users", [(fields["user"], fields) for fields in told], limit)

    async def add(self, services: Services, request: Request) -> Response:
        """A new account."""
        given: NewUser = await read(request, NewUser)
        if services.config.auth.mode != "accounts":
            raise Problem("forbidden", f"auth.mode is {services.config.auth.mode}: there are no accounts to make")
        if not is_user(given.user):
            raise Problem("bad_field", "user: a user id is 1 to 64 of A-Z a-z 0-9 _ . -, but not . or ..")
        password = make_password() if given.password is None else given.password
        await asyncio.to_thread(services.accounts.add, given.user, password)
        note("account added", user=given.user)
        fields = {"user": given.user, "password": password} if given.password is None else {"user": given.user}
        return answer(fields, 201)

    async def one(self, services: Services, request: Request) -> Response:
        """One account."""
        user = user_of(request)
        created: dict[str, int] = {}
        if services.config.auth.mode == "accounts":
            accounts = await asyncio.to_thread(services.accounts.some, "", 1, user)
            created = {account.name: account.created for account in accounts}
            known = bool(accounts)
        else:
            known = await services.has_inbox(user)
        if not known:
            raise Problem("not_found", f"there is no user {user}")
        return answer((await _told(services, [user], created))[0])

    async def remove(self, services: Services, request: Request) -> Response:
        """The account is gone and its connections are closed; with `erase` its inbox too."""
        user = user_of(request)
        erase = request.query_params.get("erase", "false")
        if erase not in ("true", "false"):
            raise Problem("bad_field", "erase: expected true or false")
        accounts = services.config.auth.mode == "accounts"
        exists = accounts and services.accounts.exists(user)
        if not exists and not (await services.has_inbox(user) and (erase == "true" or not accounts)):
            raise Problem("not_found", f"there is no user {user}")
        if exists:
            await asyncio.to_thread(services.accounts.remove, user)
        else:
            await asyncio.to_thread(services.accounts.revoke_all, user)
            await services.eraser.unsubscribe(user)
        services.act()
        await services.nodes.close(user, "account_removed")
        if erase == "true":
            await asyncio.to_thread(services.accounts.ask_erase, user)
            if await services.eraser.erase(user):
                services.bridge.background(services.eraser.fold_away())
        note("account erased" if erase == "true" else "account removed", user=user)
        return nothing()

    async def password(self, services: Services, request: Request) -> Response:
        """A new password; tokens are void and connections closed."""
        user = await _known(services, request)
        given: NewPassword = await read(request, NewPassword)
        await asyncio.to_thread(services.accounts.set_password, user, given.password)
        services.act()
        note("password changed", user=user)
        return nothing()

    async def add_token(self, services: Services, request: Request) -> Response:
        """A new token."""
        user = await _known(services, request)
        given: NewToken = await read(request, NewToken)
        if not 1 <= len(given.name) <= 128 or "\0" in given.name:
            raise Problem("bad_field", "name: 1 to 128 characters")
        if given.days is not None and not 0 < given.days <= 36_500:
            raise Problem("bad_field", "days: more than 0, and at most 36500")
        expires = None if given.days is None else time.time_ns() // 1_000_000 + int(given.days * DAY_MS)
        accounts = services.config.auth.mode == "accounts"
        text, token = await asyncio.to_thread(
            services.accounts.make_token, user, given.name, expires, session=False, account=accounts
        )
        note("token made", user=user, token=token.id, name_of_token=given.name)
        return answer({"id": token.id, "token": text, "expires": token.expires}, 201)

    async def tokens(self, services: Services, request: Request) -> Response:
        """The user's tokens, without what is secret."""
        user, limit, after = await _known(services, request), limit_of(services, request), after_of(request)
        found = await asyncio.to_thread(services.accounts.tokens, user, after, limit + 1)
        told = [
            {"id": token.id, "name": token.name, "created": token.created, "expires": token.expires, "session": token.session}
            for token in found
        ]
        return page("tokens", [(str(fields["id"]), fields) for fields in told], limit)

    async def revoke(self, services: Services, request: Request) -> Response:
        """A token is good for nothing any more."""
        user, token = user_of(request), str(request.path_params["token"])
        await asyncio.to_thread(services.accounts.revoke, user, token)
        services.act()
        note("token revoked", user=user, token=token)
        return nothing()

    async def devices(self, services: Services, request: Request) -> Response:
        """The user's registered devices, with how far each is behind."""
        user, limit, after = await _known(services, request), limit_of(services, request), after_of(request)
        services.bridge.cursors.write()
        stored: list[dict[str, Any]] = await services.bridge.ledger.call(lambda engine: belongings.lags(engine, user))
        places, silent = await services.nodes.places(user)
        told = []
        for fields in stored:
            place = places.get(fields["device"])
            where = {} if place is None or not services.nodes.several else {"node": place.node}
            told.append(
                {
                    **fields,
                    "online": place is not None,
                    "address": place.address if place is not None else None,
                    "protocol": place.protocol if place is not None else None,
                    **where,
                }
            )
        found = [(fields["device"], fields) for fields in told if fields["device"] > after]
        return page("devices", found[: limit + 1], limit, silent)

    async def forget(self, services: Services, request: Request) -> Response:
        """A device, its cursor and its session are gone."""
        user, device = user_of(request), str(request.path_params["device"])
        stored = await services.bridge.ledger.call(lambda engine: belongings.lags(engine, user))
        if device not in [fields["device"] for fields in stored]:
            raise Problem("not_found", f"{user} has no device {device[:64]!r}")
        await services.bridge.calls.make(user, rq.DeviceForget(id=new_id(), device=device))
        note("device forgotten", user=user, device=device)
        return nothing()

    async def disconnect(self, services: Services, request: Request) -> Response:
        """The user's connections are closed; nothing keeps the user from coming back."""
        user = await _known(services, request)
        silent = await services.nodes.close(user, "disconnected_by_admin")
        note("user disconnected", user=user)
        if silent:
            raise unavailable(f"disconnected, but not at {', '.join(silent)}, which does not answer; try again")
        return nothing()


async def _known(services: Services, request: Request) -> str:
    """The user in the path, whom there must be. Raises `not_found`."""
    user = user_of(request)
    if services.config.auth.mode == "accounts" and not services.accounts.exists(user):
        raise Problem("not_found", f"there is no user {user}")
    return user


async def _told(services: Services, names: list[str], created: dict[str, int]) -> list[dict[str, Any]]:
    devices: dict[str, int] = await services.bridge.ledger.call(
        lambda engine: {name: engine.state.device_count(name) for name in names}
    )
    return [
        {
            "user": name,
            "created": created.get(name),
            "devices": devices[name],
            "online": services.bridge.presence.is_online(name),
        }
        for name in names
    ]
