"""Web Push: the browsers of users who have no connected device show that something has come.

The same desk as that of `[push]`, with an outbox of its own, follows the log for users whose browsers have subscribed. What
it tells is encrypted for each browser and handed to the browser's push service. A subscription that the push service does not
know any more, or whose device was forgotten, is removed.

`encryption` is imported where it is used: what it needs takes 7 MB, and most servers have no Web Push.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from mqtt_im.config import HooksConfig, PushConfig, WebPushConfig
from mqtt_im.core.records import AnyRecord
from mqtt_im.hooks import outbox
from mqtt_im.hooks.outbox import Outbox, Push
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.ledger import Ledger
from mqtt_im.tables import Place

from . import pending
from .desk import Counter, Rows
from .push import PushDesk
from .push_services import PushServices
from .sender import Delivery, Outcome
from .service import Hooks, begin
from .subscriptions import Subscription, Subscriptions, origin_of

if TYPE_CHECKING:
    from .encryption import Vapid
    from .leading import Lead

NAME: Final = "webpush"
KEY_NAME: Final = "webpush.pem"
TTL_S: Final = 7 * 86_400
"""A push service keeps what it can't hand out for so long."""
MAX_CONVERSATIONS: Final = 5
MAX_TEXT: Final = 200
"""Characters of a message in a notification."""
GONE: Final = (404, 410)

log = logging.getLogger(__name__)


class WebPush(Hooks):
    """Web Push of a server; off, and without any file, where the configuration names no contact."""

    table_name = NAME

    def __init__(
        self,
        config: WebPushConfig,
        data_dir: Path,
        ledger: Ledger,
        online: Collection[str],
        count: Counter,
        place: Place | None = None,
        lead: Lead | None = None,
    ) -> None:
        super().__init__(PushConfig(), HooksConfig(), data_dir, ledger, online, count, place, lead)
        self._config = config
        self._subscriptions: Subscriptions | None = None
        self._vapid: Vapid | None = None

    @property
    def public_key(self) -> str:
        """What browsers subscribe with; empty where Web Push is off."""
        return self._vapid.public if self._vapid is not None else ""

    @property
    def subscriptions(self) -> Subscriptions | None:
        """The browsers that have subscribed; None where Web Push is off."""
        return self._subscriptions

    def _wanted(self) -> set[outbox.Desk]:
        return {"push"} if self._config.contact else set()

    def _prepare(self) -> None:
        from .encryption import Vapid, new_key

        subscriptions = self._subscriptions = Subscriptions(self._place, NAME)
        file = self._data_dir / KEY_NAME
        contact = self._config.contact
        try:
            if self._place.shared:  # browsers are shown one key, whichever node they ask
                self._vapid = Vapid.of(subscriptions.key(file.read_bytes() if file.exists() else new_key()), contact)
            else:
                self._vapid = Vapid.open(file, contact)
        except (OSError, ValueError) as error:
            raise StoreError(f"{file}: {error}") from error

    def _open_desks(self, rows: Outbox, reader: Rows, last: int) -> None:
        subscriptions, vapid, config = self._subscriptions, self._vapid, self._config
        assert subscriptions is not None
        assert vapid is not None

        services = PushServices()

        def make_line() -> PushServiceLine:
            return PushServiceLine(subscriptions, vapid, config, services)

        sender = self._sender("webpush", make_line, lambda: desk, lanes=False)
        position = begin(rows, "push", last)
        desk = WebPushDesk(
            rows, sender, self._count, subscriptions=subscriptions, settings=config, position=position, **self._common(reader)
        )
        self._desks.append(desk)

    async def stop(self) -> None:
        """See `Hooks`; the table of subscriptions is closed too."""
        await super().stop()
        if self._subscriptions is not None:
            self._subscriptions.close()
            self._subscriptions = None


class WebPushDesk(PushDesk):
    """Tells the users who have subscribed."""

    def __init__(self, *arguments: Any, subscriptions: Subscriptions, **common: Any) -> None:
        super().__init__(*arguments, **common)
        self._subscriptions = subscriptions

    def _wanted(self, rows: list[tuple[int, AnyRecord]]) -> dict[str, tuple[int, int]]:
        wanted = super()._wanted(rows)
        subscribed = self._subscriptions.having(wanted)
        return {user: lsns for user, lsns in wanted.items() if user in subscribed}

    def _delivery(self, push: Push, summary: pending.Summary, now: int) -> Delivery[str] | None:
        known = self._ask(lambda engine: set(engine.state.devices(push.user)))
        for subscription in self._subscriptions.of(push.user):
            if subscription.device not in known:
                self._subscriptions.remove(push.user, subscription.device)
        return super()._delivery(push, summary, now)

    def _body(self, delivery_id: str, user: str, summary: pending.Summary) -> bytes:
        return notification(delivery_id, user, summary)


def notification(delivery_id: str, user: str, summary: pending.Summary) -> bytes:
    """What a browser is told: the latest conversations, shortened until it fits into one encrypted record."""
    from .encryption import MAX_CONTENT_BYTES

    shown = [_shortened(each) for each in summary.conversations[:MAX_CONVERSATIONS]]
    bare = [{name: each for name, each in entry.items() if name not in ("body", "name")} for entry in shown[:1]]
    for part in [*(shown[:length] for length in range(len(shown), 0, -1)), bare]:
        body = msgspec.json.encode({"id": delivery_id, "user": user, "count": summary.count, "conversations": part})
        if len(body) <= MAX_CONTENT_BYTES:
            return body
    return msgspec.json.encode({"id": delivery_id, "user": user, "count": summary.count, "conversations": []})


def _shortened(entry: dict[str, Any]) -> dict[str, Any]:
    short = {name: each for name, each in entry.items() if name not in ("push", "body")}
    body = bytes(entry.get("body", b""))
    if body.startswith(b'"'):
        short["body"] = msgspec.json.decode(body)[:MAX_TEXT]
    return short


@dataclass(frozen=True, slots=True)
class PushOutcome(Outcome[str]):
    """Of all the subscriptions of a user. What one push service refuses says nothing about the others, and holds up none."""

    @property
    def reached(self) -> bool:
        """See `Outcome`."""
        return True

    @property
    def reason(self) -> str:
        """See `Outcome`."""
        return self.error or f"status {self.status}"


class PushServiceLine:
    """Attempts of one thread: each tells all subscriptions of one user, within the time that there is for one."""

    def __init__(self, subscriptions: Subscriptions, vapid: Vapid, config: WebPushConfig, services: PushServices) -> None:
        """`services` are those of all threads."""
        self._subscriptions = subscriptions
        self._vapid = vapid
        self._listed = config.services
        self._services = services
        self._timeout_s = config.timeout_s
        self._http: http.client.HTTPConnection | None = None
        self._deadline = float("inf")

    def post(self, delivery: Delivery[str]) -> Outcome[str]:
        """One attempt. A repeat comes to those who have not got it, and replaces the notification that is there."""
        try:
            known = self._subscriptions.of(delivery.key)
        except StoreError as error:
            return PushOutcome(delivery, error=error.message)
        outcome = PushOutcome(delivery, 201)
        told = set(self._services.told(delivery.id))
        end = time.monotonic() + self._timeout_s
        for subscription in known:
            if subscription.endpoint in told:
                continue
            if time.monotonic() >= end:
                outcome = PushOutcome(delivery, error="not all services have answered in time", retry_after=outcome.retry_after)
                break
            failed = self._tell(subscription, delivery, end)
            if failed is None:
                told.add(subscription.endpoint)
            else:
                outcome = replace(failed, retry_after=max(failed.retry_after, outcome.retry_after))
        self._services.half_told(delivery.id, frozenset() if outcome.taken else frozenset(told))
        return outcome

    def _tell(self, subscription: Subscription, delivery: Delivery[str], end: float) -> PushOutcome | None:
        """One subscription is told, or is no more: None; else why not, and when to try again."""
        host = urlsplit(subscription.endpoint).hostname
        try:
            origin = origin_of(subscription.endpoint, self._listed)
        except ValueError as error:
            return PushOutcome(delivery, error=str(error))
        if pause := self._services.enter(origin, _now()):
            return PushOutcome(delivery, error=f"{host} is out of order", retry_after=-(-pause // 1000))
        answer, asked = 503, 0
        try:
            answer, asked = self._post(subscription, delivery, origin, end)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # The last is what http.client raises where the socket was cut under it.
            return PushOutcome(delivery, error=f"{host}: {error or type(error).__name__}")
        finally:
            self._services.leave(origin, _now(), works=answer < 500 and answer != 429, asked=asked * 1000)
        if answer in GONE:
            log.info("webpush: a subscription is gone", extra={"user": subscription.user, "device": subscription.device})
            self._subscriptions.gone(subscription.endpoint)
        elif not 200 <= answer <= 299:
            return PushOutcome(delivery, answer, f"{host}: status {answer}", asked)
        return None

    def _post(self, subscription: Subscription, delivery: Delivery[str], origin: str, end: float) -> tuple[int, int]:
        from .encryption import b64url, encrypt

        parts = urlsplit(subscription.endpoint)
        assert parts.hostname is not None
        left = max(0.001, end - time.monotonic())
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=left, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=left)
        body = encrypt(delivery.body, subscription.p256dh, subscription.auth)
        headers = {
            "Authorization": self._vapid.authorization(origin, int(time.time())),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(TTL_S),
            # A newer one takes the place of one that was not handed out yet (RFC 8030, section 5.4).
            "Topic": b64url(sha256(f"{subscription.user}\0{subscription.device}".encode()).digest())[:32],
            "Urgency": "high",
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._http, self._deadline = connection, end
        try:
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            wait = answer.getheader("Retry-After", "")
            return answer.status, min(int(wait), 3600) if wait.isascii() and wait.isdigit() and len(wait) < 9 else 0
        finally:
            self._http, self._deadline = None, float("inf")
            connection.close()

    def cut_late(self, now: float) -> None:
        """From another thread: an attempt that has taken too long fails."""
        if now > self._deadline:
            self.cut()

    def cut(self) -> None:
        """From another thread: what waits for a push service waits no longer."""
        connection = self._http
        connected = connection.sock if connection is not None else None
        if connected is not None:
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def end(self) -> None:
        """Nothing is open between attempts."""


def _now() -> int:
    return int(time.monotonic() * 1000)
