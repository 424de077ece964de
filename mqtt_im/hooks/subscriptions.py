"""Which browsers want notifications: for each device of a user one subscription, beside the outbox (`webpush.db`).

Used from several threads. It outlives a restored backup, since browsers don't know of that.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import peewee

from mqtt_im.protocol.errors import StoreError
from mqtt_im.tables import Place, place_of, put

MAX_PER_USER: Final = 20
"""The newest ones are kept."""
MAX_URL_BYTES: Final = 2048
_CHUNK: Final = 500


class Subscription(NamedTuple):
    """Where one device's browser is reached, and the keys that only it can read with."""

    user: str
    device: str
    endpoint: str
    p256dh: str
    auth: str


class SubscriptionRow(peewee.Model):
    """A `Subscription`; `since` is in ms since 1970."""

    user = peewee.TextField()
    device = peewee.TextField()
    endpoint = peewee.TextField(unique=True)
    p256dh = peewee.TextField()
    auth = peewee.TextField()
    since = peewee.BigIntegerField()

    class Meta:
        """Names the table."""

        table_name = "subscription"
        primary_key = peewee.CompositeKey("user", "device")


class KeyRow(peewee.Model):
    """The key that all nodes show browsers, where several share the table."""

    name = peewee.TextField(primary_key=True)
    pem = peewee.BlobField()

    class Meta:
        """Names the table."""

        table_name = "key"


class Subscriptions:
    """The table. Its methods raise `StoreError` where the disk does not let them."""

    def __init__(self, where: Path | Place, name: str = "webpush") -> None:
        self._lock = threading.Lock()
        place = place_of(where)
        self._tables = place.open(name, [SubscriptionRow, KeyRow] if place.shared else [SubscriptionRow])

    def close(self) -> None:
        """Nothing is asked of it any more."""
        with self._lock:
            self._tables.close()

    def key(self, made: bytes) -> bytes:
        """The key of all nodes; it is `made` where there was none yet."""
        with self._lock, self._failing(), self._tables.transaction():
            self._run(KeyRow.insert(name="vapid", pem=made).on_conflict_ignore())
            return bytes(self._rows(KeyRow.select(KeyRow.pem))[0][0])

    def put(self, subscription: Subscription, now: int) -> None:
        """It is kept, in place of what that device, or that browser as somebody else, had before."""
        with self._lock, self._failing(), self._tables.transaction():
            same = SubscriptionRow.endpoint == subscription.endpoint
            self._run(SubscriptionRow.delete().where(same))
            self._run(put(SubscriptionRow, [{**subscription._asdict(), "since": now}]))
            mine = SubscriptionRow.user == subscription.user
            newest = SubscriptionRow.select(SubscriptionRow.since).where(mine).order_by(SubscriptionRow.since.desc())
            for (since,) in self._rows(newest.offset(MAX_PER_USER - 1).limit(1)):
                self._run(SubscriptionRow.delete().where(mine, SubscriptionRow.since < since))

    def remove(self, user: str, device: str) -> None:
        """The device wants none."""
        with self._lock, self._failing():
            self._run(SubscriptionRow.delete().where(SubscriptionRow.user == user, SubscriptionRow.device == device))

    def remove_user(self, user: str) -> None:
        """None of the user's devices has one any more."""
        with self._lock, self._failing():
            self._run(SubscriptionRow.delete().where(SubscriptionRow.user == user))

    def gone(self, endpoint: str) -> None:
        """The push service does not know it any more."""
        with self._lock, self._failing():
            self._run(SubscriptionRow.delete().where(SubscriptionRow.endpoint == endpoint))

    def of(self, user: str) -> list[Subscription]:
        """Those of a user's devices."""
        fields = [getattr(SubscriptionRow, name) for name in Subscription._fields]
        with self._lock, self._failing():
            return [Subscription(*row) for row in self._rows(SubscriptionRow.select(*fields).where(SubscriptionRow.user == user))]

    def having(self, users: Iterable[str]) -> set[str]:
        """Which of these users have one."""
        names = list(users)
        found: set[str] = set()
        with self._lock, self._failing():
            for start in range(0, len(names), _CHUNK):
                part = SubscriptionRow.user.in_(names[start : start + _CHUNK])
                found |= {user for (user,) in self._rows(SubscriptionRow.select(SubscriptionRow.user).where(part).distinct())}
        return found

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except peewee.PeeweeException as error:
            raise StoreError(f"{self._tables.where}: {error}") from error

    def _run(self, query: Any) -> Any:
        return self._tables.run(query)

    def _rows(self, query: Any) -> list[Any]:
        return self._tables.rows(query)


def origin_of(endpoint: str, services: Collection[str]) -> str:
    """The origin of a push service's URL. Raises `ValueError` with what is wrong where it is none of these services.

    Users name the URLs that the server will call, so it calls nothing but what the configuration lists.
    """
    if len(endpoint.encode()) > MAX_URL_BYTES or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        raise ValueError(f"expected a URL of at most {MAX_URL_BYTES} ASCII characters")
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a name or password")
    port = f":{parts.port}" if parts.port is not None else ""
    origin = f"{parts.scheme}://{host}{port}"
    is_listed = parts.scheme == "https" and not port and any(_matches(host, service) for service in services)
    if not is_listed and origin not in services:
        raise ValueError(f"{host or 'this'} is none of the push services that this server calls")
    return origin


def _matches(host: str, service: str) -> bool:
    return host.endswith(service[1:]) if service.startswith("*.") else host == service
