"""The desks of the webhooks over a real store, with a clock and a receiver that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from mqtt_im.config import HooksConfig, PushConfig
from mqtt_im.core.records import Message
from mqtt_im.core.rules import Limits, Who
from mqtt_im.hooks.desk import Desk
from mqtt_im.hooks.events import EventDesk
from mqtt_im.hooks.outbox import Desk as Name
from mqtt_im.hooks.outbox import Outbox
from mqtt_im.hooks.push import PushDesk
from mqtt_im.hooks.sender import Delivery, Outcome
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.follow import LogReader
from tests.support.store import SqliteStore

START = 1_700_000_000_000


class FakeSender:
    """Keeps what it is given; a test says what becomes of it."""

    def __init__(self) -> None:
        self.sent: list[Delivery[Any]] = []

    def send(self, delivery: Delivery[Any]) -> None:
        self.sent.append(delivery)

    def take(self) -> list[Delivery[Any]]:
        sent, self.sent = self.sent, []
        return sent


class World:
    """`now` is in ms. `online` holds the users with a connected device. `counts` is what was counted."""

    def __init__(self, folder: Path, *, drop_blocked: bool = False) -> None:
        self.now = START
        self.online: set[str] = set()
        self.counts: list[tuple[str, str]] = []
        self.sender = FakeSender()
        self._folder = folder
        limits = Limits(drop_blocked=drop_blocked)
        self._store = SqliteStore(folder, limits, claim=lambda *_: True, online=self.online)
        self._ids = count(1)
        self._log = LogReader(folder)
        self.outbox = Outbox(folder)
        self.outbox.belongs_to("e", self._store.engine.last)

    def close(self) -> None:
        self._log.close()
        self.outbox.close()
        self._store.close()

    def restart(self) -> None:
        """The process was killed, and there is a new one. Desks must be made anew."""
        self.outbox.close()
        self._store.crash()
        self._store.reopen()
        self.outbox = Outbox(self._folder)
        self.sender = FakeSender()

    # Messaging.

    def _run(self, job: Job) -> Job:
        self._store.run([job], self.now)
        assert job.refusal is None, job.refusal
        return job

    def request(self, user: str, request: rq.Request) -> Any:
        job = RequestJob(Who(user, "phone", 0), request, lambda _: None)
        self._run(job)
        assert job.decision is not None
        return job.decision

    def say(self, user: str, to: str, body: Any = "hi", **fields: Any) -> Message:
        request = rq.Send(id=f"r{next(self._ids)}", to=to, body=msgspec.Raw(msgspec.json.encode(body)), **fields)
        record = self.request(user, request).records[0]
        assert isinstance(record, Message)
        return record

    def attach(self, user: str) -> None:
        """A device is registered."""
        self._run(AttachJob(Who(user, "phone", 0), lambda _: None))

    def acknowledge(self, user: str) -> None:
        """The user's device has everything."""
        head = self.ask(lambda engine: engine.state.user(user).head)
        self._run(CursorsJob([(user, "phone", head, [])], lambda _: None))

    def ask(self, question: Callable[[Readable], Any], whole: Sequence[str] = ()) -> Any:
        job = CallJob(question, lambda _: None)
        self._run(job)
        return job.result

    # Webhooks.

    def pushes(self, **settings: Any) -> PushDesk:
        config = PushConfig(url="http://receiver", secret="s", **settings)
        return PushDesk(self.outbox, self.sender, self._count, settings=config, **self._common("push"))

    def events(self, **settings: Any) -> EventDesk:
        config = HooksConfig(url="http://receiver", secret="s", **settings)
        return EventDesk(self.outbox, self.sender, self._count, settings=config, **self._common("hooks"))

    def _common(self, desk: Name) -> dict[str, Any]:
        position = self.outbox.position(desk)
        if position is None:
            position = self.ask(lambda engine: engine.last)
            self.outbox.follow(desk, position)
        return {
            "log_rows": self._log,
            "ask": self.ask,
            "online": self.online,
            "epoch": "e",
            "now": self.now,
            "position": position,
            "chance": lambda: 0.5,
        }

    def _count(self, name: str, amount: float = 1, **labels: str) -> None:
        assert name == "webhooks"
        self.counts.append((labels["event"], labels["result"]))

    def step(self, desk: Desk[Any], passed_s: float = 0.0) -> list[dict[str, Any]]:
        """So much later, everything the desk finds to do is done; the bodies of what it has sent."""
        self.now += int(passed_s * 1000)
        busy = True
        while busy:
            busy = desk.follow(self.now)
            busy = desk.dispatch(self.now) or busy
        return [msgspec.json.decode(delivery.body) for delivery in self.sender.sent]

    def answer(self, desk: Desk[Any], status: int = 204, **outcome: Any) -> list[Delivery[Any]]:
        """The receiver answers everything under way."""
        sent = self.sender.take()
        with self.outbox.transaction():
            for delivery in sent:
                desk.take(Outcome(delivery, status, **outcome), self.now)
        return sent
