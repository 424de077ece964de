"""What requests cost their user: at the door, as far as it is known there, and for whom they reach, once that is known.

How many are reached by what is done in a large group is remembered, so that the next one is paid for before it is done.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from mqtt_im.core import costs
from mqtt_im.core.records import Message
from mqtt_im.core.rules import CHANGING, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.commits import Commit

from .channel import Channel
from .seam import Bridge

REPLACED: Final = 4
"""Recipients that one counts for who has a former message replaced."""
_MAX_KNOWN: Final = 10_000
_UNKNOWN: Final = costs.of_audience(400)
"""What is charged where it is not known yet how many a group reaches: else many messages to a large one would cost nothing."""


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
        self._reached: OrderedDict[tuple[str, type[rq.Request]], float] = OrderedDict()
        """What reaching them has cost last, by group and what was done in it."""

    def at_the_door(self, request: rq.Request) -> tuple[float, float]:
        """The units of a request as far as they are known now; and of whom it reaches, as the last one did."""
        price, audience, kind = costs.at_the_door(request, self._bridge.settings.max_page), 0.0, type(request)
        if kind in CHANGING and (name := where(request))[:1] == "#":
            audience = self._reached.get((name, kind), _UNKNOWN)
        return price, audience

    def charge(self, user: str, units: float) -> None:
        """Have a user pay for what comes without a connection."""
        if self._bridge.transport is not None:
            self._bridge.transport.charge(user, units)

    def when_known(self, job: Priced) -> None:
        """Charge for whom a request has reached, or give back what it has not, and remember it for the next one.

        And for what it took the ledger's thread, committed or refused, where that is more than what it costs says.
        """
        reached, begins, copies = 0, False, 0.0
        for commit in job.commits or ():
            reached += commit.members or len(commit.to) + len(commit.away)
            if len(commit.to) > costs.RECIPIENTS and commit.entry is not None:
                copies += costs.of_copies(len(commit.to), commit.entry.size)
            record = commit.record
            if type(record) is not Message:
                continue
            begins = begins or record.seq == 1
            if record.extra is not None:
                # They have had a former message that this one replaces, and are given a void in its place.
                reached += REPLACED * len(record.extra.get("replaced", ()))
        if reached <= costs.RECIPIENTS and not job.charged and job.seconds <= costs.NOTICED_S and not begins:
            return
        audience = costs.of_audience(reached) + copies + (costs.BEGINNING if begins else 0.0)
        door = costs.at_the_door(job.request, self._bridge.settings.max_page)
        units = audience - job.charged + costs.of_more_time(job.seconds, door + audience)
        if job.channel is not None:
            job.channel.link.charge(units)
        else:
            self.charge(job.who.user, units)
        if job.commits is not None and (name := where(job.request)).startswith("#"):
            key = name, type(job.request)
            self._reached.pop(key, None)
            self._reached[key] = costs.of_audience(reached) + copies
            if len(self._reached) > _MAX_KNOWN:
                del self._reached[next(iter(self._reached))]


def where(request: rq.Request) -> str:
    """The conversation that a request changes, as it names it; empty where it names none."""
    if type(request) is rq.Send:
        return request.to
    for field in ("to", "conv", "group"):
        if isinstance(name := getattr(request, field, None), str):
            return name
    return ""
