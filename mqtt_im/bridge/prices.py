"""What requests cost their user: at the door, as far as it is known there, and for whom they reach, once that is known.

How many are reached by what is done in a large group is remembered, so that the next one is paid for before it is done.
"""

from __future__ import annotations

from typing import Final, Protocol

from mqtt_im.core import costs
from mqtt_im.core.records import AnyRecord, Message
from mqtt_im.core.rules import CHANGING, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.commits import Commit

from .channel import Channel
from .seam import Bridge

_MAX_LARGE: Final = 10_000


class Priced(Protocol):
    """A job of a request that may change something; see `Job`."""

    who: Who
    request: rq.Request
    channel: Channel | None
    commits: list[Commit] | None
    seconds: float
    charged: float
    """Units that were charged for its audience before it was known."""


class Prices:
    """The prices of one bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._large: dict[str, int] = {}
        """How many were reached last by what was done in a large group, by group."""

    def at_the_door(self, request: rq.Request) -> tuple[float, float]:
        """The units of a request as far as they are known now; and of whom it reaches, as the last one did."""
        audience = costs.of_audience(self._large.get(where(request), 0)) if type(request) in CHANGING else 0.0
        return costs.at_the_door(request, self._bridge.settings.max_page), audience

    def charge(self, user: str, units: float) -> None:
        """Have a user pay for what comes without a connection."""
        if self._bridge.transport is not None:
            self._bridge.transport.charge(user, units)

    def when_known(self, job: Priced) -> None:
        """Charge for whom a committed request reaches, beyond what was known at the door; that is remembered for the next one.

        And for what a request took a thread, committed or refused, where that is more than what it costs says.
        """
        reached = sum(len(commit.to) + len(commit.away) + _taken_back(commit.record) for commit in job.commits or ())
        if reached <= costs.RECIPIENTS and not job.charged and job.seconds <= costs.NOTICED_S:
            return
        audience = costs.of_audience(reached) if job.commits is not None else job.charged
        door = costs.at_the_door(job.request, self._bridge.settings.max_page)
        units = audience - job.charged + costs.of_more_time(job.seconds, door + audience)
        if job.channel is not None:
            job.channel.link.charge(units)
        else:
            self.charge(job.who.user, units)
        if job.commits is not None and (name := where(job.request)):
            self._large.pop(name, None)
            self._large[name] = reached
            if len(self._large) > _MAX_LARGE:
                del self._large[next(iter(self._large))]


def _taken_back(record: AnyRecord) -> int:
    """How many have had a former message that this one replaces."""
    return len(record.extra.get("replaced", ())) if type(record) is Message and record.extra is not None else 0


def where(request: rq.Request) -> str:
    """The conversation that a request changes, as it names it; empty where it names none."""
    for field in ("to", "conv", "group"):
        if isinstance(name := getattr(request, field, None), str):
            return name
    return ""
