"""`POST /api/v1/{op}`: the requests of the protocol, in the same line and under the same rules as those of devices.

What is wrong is told in this order: path, method, token, `X-Act-As`, content type, size, JSON, fields.
"""

from __future__ import annotations

from time import thread_time
from typing import Any, Final, get_args

from mqtt_im.bridge.calls import NEEDS_ID, Fields, new_id
from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.core import costs
from mqtt_im.http import body
from mqtt_im.http.asgi import JSON, Receive, Scope, Send, raw_header, respond
from mqtt_im.http.errors import Problem
from mqtt_im.http.services import Desk, Services
from mqtt_im.http.who import address_of, caller_of, pay
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.codec import decode_fields, encode_json
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.names import is_device


class DeviceAck(rq.Ack, kw_only=True, tag="ack", gc=False):
    """`ack` over HTTP names the device that has processed every item up to `pos`."""

    device: str

    def check(self) -> None:
        """See `Request.check`."""
        if not is_device(self.device):
            raise rq.bad_field("device", "a device id is 1 to 64 of A-Z a-z 0-9 _ . -")


class Greeting(rq.Request, kw_only=True, tag="hello", gc=False):
    """`hello` over HTTP takes nothing: there is no device that it could be about."""


OPS: Final[dict[str, type[rq.Request]]] = {
    **{str(kind.__struct_config__.tag): kind for kind in get_args(rq.AnyRequest)},
    "ack": DeviceAck,
    "hello": Greeting,
}
"""The request of each op."""

_SILENT: Final = (rq.Read, rq.Typing)


class Requests:
    """Answers the requests of the protocol."""

    def __init__(self, desk: Desk, proxies: TrustedProxies) -> None:
        self._desk = desk
        self._proxies = proxies

    async def serve(self, op: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one. Raises `Problem`, and `Gone`."""
        if scope["method"] != "POST":
            raise Problem("method_not_allowed", "requests are made with POST", {"Allow": "POST"})
        services = self._desk.open()
        caller = caller_of(services, scope, address_of(scope, self._proxies))
        body.check_json(scope)
        limits = services.config.limits
        await pay(services, caller.user)
        payload = await body.read(scope, receive, limits.max_packet_bytes)
        kind, begin, understood = OPS[op], thread_time(), False
        try:
            make_id = new_id if kind in NEEDS_ID else None
            try:
                request = decode_fields(kind, payload, raw_header(scope, b"idempotency-key"), make_id, limits.max_body_bytes)
                understood = True
            except Refusal as refusal:
                services.metrics.count("refusals", code=refusal.code)
                raise
            finally:
                services.transport.charge(caller.user, costs.of_payload(len(payload), thread_time() - begin, understood))
            with self._desk:
                answer = await self._answer(services, caller.user, request)
        except Refusal as refusal:
            raise Problem.of(refusal) from None
        await respond(send, 200, encode_json(answer), JSON)

    @staticmethod
    async def _answer(services: Services, user: str, request: rq.Request) -> dict[str, Any]:
        calls = services.bridge.calls
        if isinstance(request, DeviceAck):
            await calls.ack(user, request.device, request.pos)
            return {}
        fields: Fields = await calls.make(user, rq.Hello() if isinstance(request, Greeting) else request)
        if isinstance(request, _SILENT):
            return {}
        return {name: value for name, value in fields.items() if name not in ("op", "pos")}
