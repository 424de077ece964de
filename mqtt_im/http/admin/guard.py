"""What every call of the administration shares: who may make it, its path, body and lists, and the log of what it changed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http import body
from mqtt_im.http.errors import Problem, unavailable
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.who import address_of, caller_of
from mqtt_im.protocol.codec import encode_json
from mqtt_im.protocol.errors import MqttImError, Refusal, StoreError
from mqtt_im.protocol.names import is_user

log = logging.getLogger(__name__)

ROOT: Final = "/api/v1/admin/"
MAX_BYTES: Final = 8192
_CODES: Final = {"exists": "conflict", "not_found": "not_found", "name": "bad_field", "password": "bad_field", "quota": "quota"}
"""What a failed command on the accounts is over HTTP."""

Call = Callable[[Services, Request], Awaitable[Response]]


class Guard:
    """Lets the operator in."""

    def __init__(self, desk: Desk, proxies: TrustedProxies) -> None:
        self._desk = desk
        self._proxies = proxies

    def route(self, path: str, **calls: Call) -> list[Route]:
        """The calls of a path, by method."""

        def guarded(call: Call) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                services = self._desk.open()
                caller = caller_of(services, request.scope, address_of(request.scope, self._proxies), acting=False)
                if not caller.admin:
                    raise Problem("forbidden", "this needs the admin token")
                try:
                    with self._desk:
                        return await call(services, request)
                except StoreError as error:
                    log.error("a request of the administration failed: %s", error.message)
                    raise unavailable(error.message) from None
                except Refusal as refusal:
                    raise Problem.of(refusal) from None
                except MqttImError as error:
                    raise Problem(_CODES.get(error.code, "bad_field"), error.message) from None

            return answer

        async def chosen(request: Request) -> Response:
            method = "get" if request.method == "HEAD" else request.method.lower()
            return await guarded(calls[method])(request)

        return [Route(ROOT + path, chosen, methods=[method.upper() for method in calls])]


async def read(request: Request, kind: type[Any]) -> Any:
    """The body as a `kind` of struct. Raises `Problem`."""
    return await body.read_as(request.scope, request.receive, MAX_BYTES, kind)


def answer(fields: Any, status: int = 200) -> Response:
    """A map as JSON."""
    return Response(encode_json(fields), status, {"Cache-Control": "no-store"}, "application/json")


def nothing() -> Response:
    """Done, and there is nothing to tell."""
    return Response(status_code=204)


def user_of(request: Request) -> str:
    """The user in the path. Raises `not_found`."""
    name = str(request.path_params["user"])
    if not is_user(name):
        raise Problem("not_found", f"there is no user {name[:64]!r}")
    return name


def limit_of(services: Services, request: Request) -> int:
    """How many entries the list may have."""
    most = services.config.limits.max_page
    text = request.query_params.get("limit")
    if text is None:
        return most
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not int(text):
        raise Problem("bad_field", "limit: expected a number, at least 1")
    return min(int(text), most)


def after_of(request: Request) -> str:
    """The name behind which the list goes on; empty: it begins."""
    after = str(request.query_params.get("after", ""))
    if "\0" in after:  # which no name has, and PostgreSQL takes in no text
        raise Problem("bad_field", "after: expected a `next` of this list")
    return after


def page(name: str, found: Sequence[tuple[str, Any]], limit: int, silent: Sequence[str] = ()) -> Response:
    """A list; `found` has each entry behind what `after` takes to go on behind it, one more than fits where there are more.

    `silent`: nodes that were asked for theirs and have not answered.
    """
    fields: dict[str, Any] = {name: [entry for _, entry in found[:limit]], "more": len(found) > limit}
    if fields["more"]:
        fields["next"] = found[limit - 1][0]
    if silent:
        fields["not_answering"] = silent
    return answer(fields)


def note(what: str, **whom: object) -> None:
    """Log a change: what was done, and whom it concerns."""
    log.info(what, extra={"by": "admin", **whom})
