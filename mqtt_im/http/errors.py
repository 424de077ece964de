"""What a refused HTTP request is answered: `application/problem+json` (RFC 9457), one code for each kind of mistake."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final

import msgspec

from mqtt_im.http.asgi import Headers, Send, respond
from mqtt_im.protocol.errors import Refusal

STATUS: Final[dict[str, int]] = {
    "bad_payload": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_member": 403,
    "blocked": 403,
    "not_found": 404,
    "unknown_op": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "out_of_order": 409,
    "too_large": 413,
    "unsupported_type": 415,
    "bad_range": 416,
    "bad_field": 422,
    "rate_limited": 429,
    "unavailable": 503,
    "quota": 507,
}
"""The status of each code."""

TYPE: Final = b"application/problem+json"


class Problem(Exception):
    """A request that is refused; `headers` go along with the answer."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None, status: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.status = status or STATUS[code]

    @classmethod
    def of(cls, refusal: Refusal) -> Problem:
        """What a refused request of the protocol is over HTTP."""
        headers = {}
        if refusal.retry or refusal.code in ("rate_limited", "unavailable"):
            headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after or 1)))
        return cls(refusal.code, refusal.message, headers)

    def body(self) -> dict[str, Any]:
        """The fields of the answer."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }


def unauthorized(detail: str) -> Problem:
    """No token, or a wrong one (RFC 6750)."""
    return Problem("unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def too_fast(detail: str, seconds: float) -> Problem:
    """To be tried again after so many seconds."""
    return Problem("rate_limited", detail, {"Retry-After": str(max(1, math.ceil(seconds)))})


def unavailable(detail: str, seconds: float = 1) -> Problem:
    """The server can't do it now."""
    return Problem("unavailable", detail, {"Retry-After": str(max(1, math.ceil(seconds)))})


async def tell(problem: Problem, send: Send) -> None:
    """Answer with the problem."""
    headers: Headers = [(b"content-type", TYPE), (b"cache-control", b"no-store")]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    await respond(send, problem.status, msgspec.json.encode(problem.body()), headers)
