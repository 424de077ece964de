"""A store filled through its engine, without broker and sockets."""

from __future__ import annotations

import random
import secrets

from msgspec import Raw

from bench.report import tell
from mqtt_im.core.rules import Who
from mqtt_im.load.bodies import bodies
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.engine import Engine

_BATCH = 200
_TELL = 50_000


def _nothing(_: object) -> None:
    """Nobody waits."""


class Filler:
    """Messages of one time, ms since 1970."""

    def __init__(self, engine: Engine, now: int) -> None:
        self._now = now
        self._engine = engine
        self._texts = [Raw(b'"%b"' % body) for body in bodies()]
        self._dice = random.Random(1)
        self._count = 0
        self._name = secrets.token_hex(4)

    def say(self, pairs: list[tuple[str, str]], written: bool = True) -> None:
        """A message of each first one to the second, which the projections get too, unless they are not to be `written`."""
        engine = self._engine
        for start in range(0, len(pairs), _BATCH):
            part = pairs[start : start + _BATCH]
            engine.now = self._now
            jobs = []
            for user, to in part:
                self._count += 1
                send = rq.Send(id=f"{self._name}{self._count}", to=to, body=self._dice.choice(self._texts))
                jobs.append(RequestJob(Who(user, "pc", self._now), send, _nothing))
            engine.prefetch(jobs)
            for job in jobs:
                job.prepare(engine)
            engine.commit()
            if written:
                engine.side_work(len(part))
            if self._count // _TELL > (self._count - len(part)) // _TELL:
                tell(f"{self._count:,} messages are stored")
