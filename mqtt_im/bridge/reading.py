"""Requests that only read: what reads for each, and the job that does."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any, Protocol

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.reads import ReadJob
from mqtt_im.store.queries import belongings, listings, pages, visibility
from mqtt_im.store.queries.unread import STEP, Counts, Unfinished

from .channel import Channel

Reading = Callable[[Readable, Who, Any, int, Counts], Any]
"""What reads for a request; after it come the most bytes that a page may have, and what former steps have counted."""


class Answering(Protocol):
    """Who has the reply sent."""

    def read(self, job: ReadingJob) -> None:
        """The job is over."""


class ReadingJob(ReadJob):
    """A request that only reads."""

    __slots__ = ("channel", "counts", "packet_id", "read", "request", "result", "size", "token", "unfinished", "uplink", "who")

    def __init__(
        self, uplink: Answering, channel: Channel, token: int, who: Who, request: rq.Request, read: Reading, size: int
    ) -> None:
        super().__init__()
        self.packet_id = 0
        """Of the packet in whose place the reply is sent, where it had not been acknowledged on a former connection."""
        self.uplink = uplink
        self.channel = channel
        self.token = token
        self.who = who
        self.request = request
        self.read = read
        self.size = size
        self.counts = Counts(STEP)
        self.result: Any = None
        self.unfinished = False
        """Whether there is more to read than one step may; then it is to be handed in again."""

    def line(self) -> str:
        """See `Job`."""
        return self.who.user

    def finish(self, engine: Readable) -> None:
        """See `Job`. What nobody is there to be answered is not read: `result` stays None."""
        self.unfinished = False
        if self.channel.link.closed and not isinstance(self.request, rq.Typing):
            return  # else who asks for much and goes leaves minutes of work behind
        self.who.now = engine.now
        began = thread_time()
        try:
            self.result = self.read(engine, self.who, self.request, self.size, self.counts)
        except Unfinished:
            self.unfinished = True
        self.seconds += thread_time() - began

    def done(self) -> None:
        """See `Job`."""
        self.uplink.read(self)


def readings(page: int) -> dict[type[rq.Request], Reading]:
    """What reads, by kind of request; `page` is the most entries of a page."""
    return {
        rq.Sync: lambda engine, who, request, size, _: pages.sync(engine, who, request, _limit(request, page), size),
        rq.History: lambda engine, who, request, size, _: pages.history(engine, who, request, _limit(request, page), size),
        rq.Convs: lambda engine, who, request, size, counts: listings.convs(
            engine, who, request, _limit(request, page), size, counts
        ),
        rq.GroupInfo: lambda engine, who, request, size, _: listings.group_info(
            engine, who, request, _limit(request, page), size
        ),
        rq.Devices: lambda engine, who, *_: belongings.devices(engine, who),
        rq.Typing: lambda engine, who, request, *_: visibility.typing_audience(engine, who, request.to),
    }


def _limit(request: Any, page: int) -> int:
    return min(request.limit or page, page)
