"""The bridge over a real store, without sockets or the ledger's thread: a test says when a batch is committed, or fails."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any, Self, cast
from unittest.mock import Mock, patch

from mqtt_im.bridge.audience import Audience
from mqtt_im.bridge.claims import Claims
from mqtt_im.bridge.service import Bridge
from mqtt_im.bridge.settings import BridgeSettings
from mqtt_im.core.rules import Limits
from mqtt_im.metrics import Metrics
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.topics import Topics
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.refusals import unavailable
from mqtt_im.transport.api import Lease
from tests.support.im import ITEMS, Map, decode, encode
from tests.support.store import SqliteStore

START = 1_700_000_000_000


class FakeLink:
    """One connection of a device that is subscribed to both of its down topics at QoS 1."""

    def __init__(self, user: str, device: str, *, clean: bool = True, resumed: bool = False) -> None:
        self.user, self.device = user, device
        self.address, self.since, self.protocol = "", 0, "mqtt3"
        self.lease: Lease | None = None
        self.session = f"{user}:{device}"
        self.clean, self.resumed = clean, resumed
        self.version = 4
        self.room, self.max_packet = 65_536, 0
        self.user_qos = self.device_qos = 1
        self.writable = True
        self.closed = False
        self.sent: list[tuple[Map, int, bool]] = []
        """What was written, with packet identifier and DUP."""
        self.raw: list[bytes] = []
        """The same as it was written."""
        self.properties: list[bytes] = []
        """With which properties, in MQTT 5."""
        self.charged = 0.0
        """Units beside the one for each request."""
        self.loaded = self.kept = 0
        """Bytes of large requests without an answer; and of what is held for it."""
        self.answered: list[int] = []
        self.failed: list[int] = []

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
    ) -> bool:
        self.sent.append((decode(payload), packet_id, dup))
        self.raw.append(payload)
        self.properties.append(properties)
        return True

    def owes(self) -> float:
        return 0.0

    def charge(self, units: float) -> None:
        self.charged += units

    def under_way(self, size: int) -> None:
        self.loaded += size

    def keep(self, size: int) -> None:
        self.kept += size

    def refuse(self, token: int, code: int, text: str) -> None:
        self.done(token)

    def done(self, token: int) -> None:
        self.answered.append(token)

    def fail(self, token: int) -> None:
        self.failed.append(token)
        self.closed = True

    def close(self, reason: str) -> None:
        self.closed = True

    @property
    def items(self) -> list[Map]:
        """Every item that was written."""
        return [item for item, _, _ in self.sent if item["op"] in ITEMS]

    @property
    def positions(self) -> list[int]:
        """The `pos` of every item that was written."""
        return [item["pos"] for item in self.items]

    def of(self, op: str) -> list[Map]:
        """Everything of this op that was written."""
        return [item for item, _, _ in self.sent if item["op"] == op]


class _ByHand(Ledger):
    """Jobs wait in `waiting` until a test runs them."""

    epoch = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.came = asyncio.Event()
        """Set with each job that is handed in."""

    @property
    def waiting(self) -> list[Job]:
        return self._pending

    def submit(self, job: Job) -> None:
        self._pending.append(job)
        self.came.set()


class BridgeWorld:
    """To be made and used on an event loop."""

    def __init__(self, folder: Path, limits: Limits | None = None, settings: BridgeSettings | None = None) -> None:
        self.now = START
        self.claims = Claims()
        audience = Audience()
        self.store = SqliteStore(
            folder, limits, claim=self.claims.take_back, unclaim=self.claims.release, online=audience, ledger=_ByHand
        )
        self.ledger = cast(_ByHand, self.store.ledger)
        self.ledger.epoch = self.store.engine.epoch
        metrics = Metrics()
        settings = settings or BridgeSettings()
        self.bridge = Bridge(self.ledger, Topics("im/v1"), settings, cast(Any, None), self.claims, metrics, audience)
        self._tokens: dict[FakeLink, int] = defaultdict(int)

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What clients do.

    def connect(self, user: str, device: str = "phone", **session: Any) -> FakeLink:
        """A connection that has its subscriptions; its delivery begins with the next batch."""
        link = FakeLink(user, device, **session)
        self.bridge.attached(link)
        return link

    def ask(self, link: FakeLink, op: str, **fields: Any) -> int:
        """An uplink is handed in; its token."""
        self._tokens[link] = token = self._tokens[link] + 1
        self.bridge.uplink(link, encode({"op": op, **fields}), token, token, False)
        return token

    def puback(self, link: FakeLink, *positions: int) -> None:
        """PUBACKs of the packets that ended with these items, as they were last written."""
        for pos in positions:
            packet_id = [packet_id for item, packet_id, _ in link.sent if item.get("pos") == pos][-1]
            self.bridge.acked(link, [packet_id])

    def read(self, link: FakeLink, reply: str) -> None:
        """PUBACK of the reply to a request, by its `id`."""
        self.bridge.acked(link, [packet_id for item, packet_id, _ in link.sent if item.get("id") == reply][-1:])

    def leave(self, link: FakeLink) -> None:
        link.closed = True
        self.bridge.detached(link)

    # What the ledger does.

    def batch(self, *, fails: bool = False, told: bool = True) -> None:
        """What waits is one batch, which is committed, or is not; nobody hears of that where it is not `told`."""
        self.ledger.came.clear()
        waiting = list(self.ledger.waiting)
        self.ledger.waiting.clear()
        if fails:
            with patch.object(self.store.engine.log, "append", side_effect=sqlite3.OperationalError("disk I/O error")):
                self.store.run(waiting, self.now)
        elif not told:
            loop, self.ledger._loop = self.ledger._loop, Mock()
            try:
                self.store.run(waiting, self.now)
            finally:
                self.ledger._loop = loop
        else:
            self.store.run(waiting, self.now)

    def refuse(self, refusal: Refusal | None = None) -> None:
        """What waits is refused and not looked at, as where the store is away."""
        waiting = list(self.ledger.waiting)
        self.ledger.waiting.clear()
        for job in waiting:
            job.refuse(refusal or unavailable())
            job.done()

    def crashed(self) -> BridgeWorld:
        """The process ends here; the next one, on the same files."""
        self.store.crash()
        return BridgeWorld(self.store.data_dir)

    def settle(self) -> None:
        """Everything that waits, and all that follows from it, is committed and told."""
        self.bridge.pump.all_ready()
        while self.ledger.waiting:
            self.batch()
            self.bridge.pump.all_ready()

    def cursor(self, user: str, device: str = "phone") -> int:
        """The device's cursor in the store."""
        found = self.store.engine.state.device(user, device)
        assert found is not None
        return found.cursor
