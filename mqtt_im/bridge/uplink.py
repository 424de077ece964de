"""Uplink: a payload becomes a typed request, the request a job, the job's end a reply and a PUBACK.

Whatever changes something waits for its commit. Reads of a user are done behind it, so a device reads its own writes. Every
request gets its final answer exactly once: `Link.done`, or `Link.fail` where the client is to send it again.
"""

from __future__ import annotations

import secrets
import time
from math import ceil
from typing import Any, Final, Literal, get_args

from mqtt_im.core import costs
from mqtt_im.core.rules import CHANGING, Who
from mqtt_im.core.rules.common import answer
from mqtt_im.mqtt import V5
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.codec import glance_at
from mqtt_im.protocol.errors import Quota, Refusal, Undecided
from mqtt_im.protocol.faults import Unreadable
from mqtt_im.transport.api import Extra
from mqtt_im.transport.under_way import LARGE

from . import extras
from .changing import UplinkJob, is_unanswered
from .channel import Channel
from .leaving import Leaving
from .payloads import read
from .prices import Prices
from .reading import ReadingJob, readings
from .reasons import reason_of
from .seam import Bridge, Surroundings

MAX_LATE_BYTES = 512 * 1024
"""Of replies that wait until the device takes more packets; then its pages are short."""
_SHORT_PAGE: Final = 8192

_NAME_BYTES: Final = 100
"""Of each name in a list, once it is one."""

_SHOWING: Final = (rq.Sync, rq.History, rq.Convs)
"""Requests whose replies show messages."""


class Uplink:
    """The requests of all devices."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.leaving = Leaving()
        self._prices = Prices(bridge)
        settings = bridge.settings
        self._ops = {kind: bridge.metrics.cell("uplinks", op=str(kind.__struct_config__.tag)) for kind in get_args(rq.AnyRequest)}
        self._committed = bridge.metrics.observer("commit_seconds")
        self._reads = readings(settings.max_page)

    # In.

    def take(self, channel: Channel, payload: bytes, token: int, packet_id: int, dup: bool, extra: Extra | None = None) -> None:
        """One uplink of a connected device; see `transport.api.Handler.uplink`."""
        bridge = self._bridge
        if extra is not None:
            token = channel.correlate(token, extra.correlation)
        try:
            request, size = read(payload, bridge.settings, channel.link.charge)
        except Unreadable as unreadable:
            self._refuse(channel, unreadable, unreadable.id, token)
            return
        if extra is not None and (wrong := extras.apply(extra, request, payload, channel)) is not None:
            self._refuse(channel, wrong[0], request.id, token, wrong[1])
            return
        self.ask(channel, request, token, packet_id, dup, size)

    def ask(self, channel: Channel, request: rq.Request, token: int, packet_id: int, dup: bool, size: int = 0) -> None:
        """One request of a channel, a publish of so many bytes; its reply and the end of `token` follow."""
        bridge = self._bridge
        kind = type(request)
        self._ops[kind][0] += 1
        price, audience = self._prices.at_the_door(request)
        link = channel.link
        if price + audience > 1:
            link.charge(price + audience - 1)
        who = Who(channel.user, channel.device, 0, link.user_qos >= 0 or link.device_qos >= 0)
        channel.waiting += 1
        if kind in CHANGING:
            if kind is rq.Send and request.id is None and packet_id:
                who.packet = (link.session, packet_id, dup)
            elif kind is rq.GroupCreate:
                who.token = secrets.token_hex(6)
            elif isinstance(request, rq.Hello):
                channel.greeting += 1
                self._about_to_restart(channel.user, channel.device, request)
            job = UplinkJob(self, channel, token, who, request)
            job.charged = audience
            if size > LARGE:
                job.load = size + _NAME_BYTES * len(getattr(request, "members", ()))
                link.under_way(job.load)
            bridge.ledger.submit(job)
        elif isinstance(request, rq.Typing) and not channel.may_tell_typing(request.to, request.on, time.monotonic()):
            self.leaving.answered(channel)
            self._done(channel, token)
        elif (read := self._reads.get(kind)) is not None:
            if kind in (rq.Devices, rq.Convs):
                bridge.cursors.write_of([(channel.user, other.device) for other in bridge.online.get(channel.user, ())])
            elif kind is rq.Sync:
                bridge.pulling.before(channel.user)
            bridge.ledger.submit(ReadingJob(self, channel, token, who, request, read, self.page_bytes(channel)))
        elif isinstance(request, rq.Search) and bridge.searching is not None:
            bridge.searching.take(channel, token, who, request)
        else:
            self.leaving.answered(channel)
            refusal = Refusal("unknown_op", f"op: {kind.__struct_config__.tag!r} is switched off here")
            self._refuse(channel, refusal, request.id, token)

    def page_bytes(self, channel: Channel) -> int:
        """The most bytes of a page for this device; few where it leaves many unread."""
        size = max(1024, self._bridge.settings.max_packet_bytes - 1024)
        if channel.late_bytes > MAX_LATE_BYTES:
            size = min(size, _SHORT_PAGE)
        return min(size, max(128, channel.payload_bytes - 256)) if channel.payload_bytes else size

    def will(self, user: str, device: str, payload: bytes, expiry: int | None = None) -> None:
        """A will on a device's own `up`: a request that nobody waits for. The user pays for it before the next login."""
        bridge = self._bridge
        try:
            request, _ = read(payload, bridge.settings, lambda units: self._prices.charge(user, units))
        except Unreadable as unreadable:
            bridge.metrics.count("refusals", code=unreadable.code)
            return
        price, audience = self._prices.at_the_door(request)
        self._prices.charge(user, price + audience)
        if (wrong := extras.expire(request, expiry)) is not None:
            bridge.metrics.count("refusals", code=wrong.code)
        elif type(request) in CHANGING:
            who = Who(user, device, 0, listening=False, token=secrets.token_hex(6))
            if isinstance(request, rq.Hello):
                self._about_to_restart(user, device, request)
            job = UplinkJob(self, None, 0, who, request)
            job.charged = audience
            bridge.ledger.submit(job)

    def _about_to_restart(self, user: str, device: str, request: rq.Hello) -> None:
        """What a `hello` says of the cursor comes after everything that the device had acknowledged before it."""
        if request.epoch is not None and request.epoch != self._bridge.ledger.epoch:
            request.after = request.n = None  # of another store: positions mean nothing here
        if _sets_cursor(request):
            self._bridge.cursors.hold(user, device)

    def rate_limited(
        self, channel: Channel, payload: bytes, token: int, retry_after: float, dup: bool, extra: Extra | None = None
    ) -> None:
        """See `transport.api.Handler.rate_limited`."""
        if extra is not None:
            token = channel.correlate(token, extra.correlation)
        request_id, sends = glance_at(payload)
        refusal = (Undecided if dup and sends and request_id is None else Refusal)(
            "rate_limited",
            f"more than {self._bridge.settings.requests_per_second} requests a second; send it again later",
            retry=True,
            retry_after=ceil(retry_after * 10) / 10,  # never 0
        )
        self._refuse(channel, refusal, request_id, token)

    # Out.

    def decided(self, job: UplinkJob) -> None:
        """A request that may change something is committed, or refused."""
        channel = job.channel
        if channel is not None:
            self.leaving.answered(channel)
        try:
            self._decided(channel, job)
        except Exception:
            _give_up(channel)
            raise

    def _decided(self, channel: Channel | None, job: UplinkJob) -> None:
        bridge, kind = self._bridge, type(job.request)
        if job.refusal is None:
            self._committed(time.perf_counter() - job.at)
        if type(job.request) is rq.Hello and _sets_cursor(job.request):
            void: Literal["nothing", "since", "all"] = "since" if job.request.after is None else "all"
            bridge.cursors.release(job.who.user, job.who.device, "nothing" if job.refusal is not None else void)
        if job.commits is not None or job.receipts is not None:
            bridge.telling.tell(job)
        if job.commits is not None or job.charged or job.seconds > costs.NOTICED_S:
            self._prices.when_known(job)
        if channel is None:
            if job.refusal is None:
                self._has_changed(None, job)
            return
        if kind is rq.Hello:
            channel.greeting -= 1
        if job.refusal is not None:
            self._refuse(channel, job.refusal, job.request.id, job.token)
            bridge.pump.now(channel)
            return
        if kind is not rq.Send:
            self._has_changed(channel, job)
        assert job.decision is not None
        correlation = channel.correlation(job.token) if channel.correlations else None
        if job.decision.reply is not None:
            channel.reply(job.decision.reply, correlation)
        elif kind is rq.Send and not channel.device:
            # A device sees `sent` as an item of its inbox; who has none is told here.
            channel.reply(answer(job.decision.records[0], "", channel.user))
        elif correlation is not None:
            extras.await_sent(channel, job, correlation)
        self._done(channel, job.token)

    def _has_changed(self, channel: Channel | None, job: UplinkJob) -> None:
        """What a committed request means for who is connected, beside its items; a will's has no channel."""
        bridge, request, user = self._bridge, job.request, job.who.user
        if isinstance(request, rq.Hello):
            if channel is not None:
                self._hello(channel, job)
        elif isinstance(request, rq.Ack):
            bridge.confirmed(user, job.who.device, request.pos)
        elif isinstance(request, rq.DeviceForget):
            bridge.forget(user, request.device)  # one that only publishes is not registered, but may be connected
        elif isinstance(request, rq.Block | rq.Unblock | rq.Settings) and job.commits is not None:
            bridge.presence.changed(user)

    def read(self, job: ReadingJob) -> None:
        """A request that only reads has its result, or goes on with its next step."""
        if job.unfinished and job.refusal is None:
            job.counts.keep()
            self._bridge.ledger.submit(job)
            return
        self.leaving.answered(job.channel)
        try:
            self._read(job.channel, job)
        except Exception:
            _give_up(job.channel)
            raise

    def _read(self, channel: Channel, job: ReadingJob) -> None:
        request = job.request
        if isinstance(request, rq.Typing) and (job.refusal is not None or not job.result[1]):
            channel.typed = None  # nobody was told, so the same again is news
        if job.refusal is not None:
            self._refuse(channel, job.refusal, request.id, job.token)
            return
        if job.result is None:  # the connection had gone when its turn, or that of a further step, came
            channel.link.charge(costs.of_more_time(job.seconds, 1.0))
            self._done(channel, job.token)
            return
        door = costs.at_the_door(request, self._bridge.settings.max_page)
        channel.link.charge(costs.of_page(job.result, job.seconds) - door)
        if isinstance(request, rq.Typing):
            conv, users = job.result
            channel.link.charge(costs.of_audience(len(users)))
            self._bridge.telling.event(users, {"op": "typing", "conv": conv, "from": channel.user, "on": request.on})
        elif isinstance(request, rq.Devices):
            if self._bridge.neighbourhood is not None and channel.user in self._bridge.audience.elsewhere:
                self._bridge.background(self._ask_who_is_elsewhere(channel, job, self._bridge.neighbourhood))
                return
            self._tell_devices(channel, job, set())
        else:
            again = request if isinstance(request, _SHOWING) else None
            channel.reply(_with_id(job.result, request.id), channel.correlation(job.token), again, job.packet_id)
        self._done(channel, job.token)

    async def _ask_who_is_elsewhere(self, channel: Channel, job: ReadingJob, others: Surroundings) -> None:
        try:
            self._tell_devices(channel, job, await others.devices_of(channel.user))
        except Exception:
            _give_up(channel)
            raise
        self._done(channel, job.token)

    def _tell_devices(self, channel: Channel, job: ReadingJob, elsewhere: set[str]) -> None:
        connected = {other.device for other in self._bridge.online.get(channel.user, ())} | {channel.device} | elsewhere
        found = [{**device, "online": device["device"] in connected} for device in job.result]
        channel.reply(_with_id({"op": "ok", "devices": found}, job.request.id), channel.correlation(job.token))

    def ask_again(self, channel: Channel, packet_id: int, request: rq.Request, correlation: bytes | None) -> None:
        """A reply that was not acknowledged on a former connection is made anew and sent in its place."""
        who = Who(channel.user, channel.device, 0)
        channel.waiting += 1
        read = self._reads.get(type(request))
        if read is not None:
            job = ReadingJob(self, channel, channel.correlate(0, correlation), who, request, read, self.page_bytes(channel))
            job.packet_id = packet_id
            self._bridge.ledger.submit(job)
        elif isinstance(request, rq.Search) and self._bridge.searching is not None:
            channel.forget_reply(packet_id)  # found anew, it is another reply
            self._bridge.searching.take(channel, channel.correlate(0, correlation), who, request)
        else:
            self.leaving.answered(channel)

    def searched(self, channel: Channel, token: int, request: rq.Search, outcome: dict[str, Any] | Refusal) -> None:
        """A search has its page, or is refused."""
        self.leaving.answered(channel)
        if isinstance(outcome, Refusal):
            self._refuse(channel, outcome, request.id, token)
            return
        channel.link.charge(costs.of_page(outcome))
        channel.reply(_with_id(outcome, request.id), channel.correlation(token), request)
        self._done(channel, token)

    def _hello(self, channel: Channel, job: UplinkJob) -> None:
        request, state, bridge = job.request, job.device_state, self._bridge
        assert isinstance(request, rq.Hello) and state is not None
        settings = bridge.settings
        channel.codec = request.codec or channel.codec
        channel.zip = channel.zip if request.zip is None else request.zip
        batch = request.batch_bytes
        if batch is not None:
            channel.batch = batch
        if request.window is not None:
            channel.window = min(request.window, settings.max_inflight)
        delivery = channel.delivery
        if delivery is not None:
            if batch is not None:
                delivery.batch = batch
            channel.limit_batches()
            delivery.window = channel.window or settings.max_inflight
            if state.app and not delivery.app:
                delivery.cursor = min(delivery.cursor, state.cursor)  # PUBACKs since the `hello` do not count
            delivery.app = state.app
            if request.after is not None:
                channel.restart(request.after, state.head)
        bridge.pulling.came(channel.user, state.head)
        channel.reply(
            _with_id(
                {
                    "op": "welcome",
                    "pos": delivery.cursor if delivery is not None else state.cursor,
                    "head": state.head,
                    "floor": state.floor,
                    "n": state.n,
                    "epoch": bridge.ledger.epoch,
                    "limits": self.limits(channel.window),
                    "ts": job.who.now,
                },
                request.id,
            ),
            channel.correlation(job.token),
        )
        bridge.pump.now(channel)

    def limits(self, window: int) -> dict[str, int]:
        """The `limits` of a `welcome`; `window` is what the device has asked for, 0 where it has not."""
        settings = self._bridge.settings
        return {
            "packet": settings.max_packet_bytes,
            "body": settings.max_body_bytes,
            "window": window or settings.max_inflight,
            "rate": settings.requests_per_second,
            "page": settings.max_page,
        }

    def _refuse(self, channel: Channel, refusal: Refusal, request_id: str | None, token: int, reason: int | None = None) -> None:
        """Tell why, in an `error` and in MQTT 5's acknowledgement, whose reason code is `reason` where it is given."""
        self._bridge.metrics.count("refusals", code=refusal.code)
        if isinstance(refusal, Quota):
            self._bridge.metrics.count("quota_refusals", what=refusal.what)
        channel.reply(error_fields(refusal, request_id), channel.correlation(token))
        if is_unanswered(channel, refusal):
            channel.link.fail(token)
        elif channel.link.version == V5:
            code, text = reason_of(refusal)
            self._done(channel, token, reason or code, text)
        else:
            self._done(channel, token)

    def _done(self, channel: Channel, token: int, code: int = 0, text: str = "") -> None:
        """Acknowledge the uplink, behind its reply.

        It waits for nothing that the device has still to send: that may stand behind more requests than are read at a time.
        """
        if channel.correlations:
            channel.correlation(token)  # of what had no reply
        if token > 0:
            if code:
                channel.link.refuse(token, code, text)
            else:
                channel.link.done(token)


def _give_up(channel: Channel | None) -> None:
    """A mistake of ours has met an answer, which never comes, nor any behind it: the device asks again when it is back."""
    if channel is not None:
        channel.link.close("unavailable")


def error_fields(refusal: Refusal, request_id: str | None) -> dict[str, Any]:
    """The fields of an `error` packet."""
    fields: dict[str, Any] = {"op": "error"}
    if request_id is not None:
        fields["id"] = request_id
    fields.update(code=refusal.code, message=refusal.message, retry=refusal.retry)
    if refusal.retry_after is not None:
        fields["retry_after"] = refusal.retry_after
    if refusal.expected is not None:
        fields["expected"] = refusal.expected
    return fields


def _with_id(fields: dict[str, Any], request_id: str | None) -> dict[str, Any]:
    if request_id is None:
        return fields
    return {"op": fields["op"], "id": request_id, **fields}


def _sets_cursor(request: rq.Hello) -> bool:
    """Whether a `hello` sets the cursor, or what moves it."""
    return request.after is not None or request.ack == "app"
