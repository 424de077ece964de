"""Requests that may change something: the job that does what they ask."""

from __future__ import annotations

import time
from typing import Protocol

from mqtt_im.core.rules import Who
from mqtt_im.mqtt import V5
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal, Undecided
from mqtt_im.store.interface import Engine
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.refusals import undecided

from .channel import Channel


class Deciding(Protocol):
    """Who has the answer sent."""

    def decided(self, job: UplinkJob) -> None:
        """The job is over."""


class UplinkJob(RequestJob):
    """A request that may change something, with whom its answer goes to."""

    __slots__ = ("at", "before", "channel", "charged", "load", "token", "uplink")

    def __init__(self, uplink: Deciding, channel: Channel | None, token: int, who: Who, request: rq.Request) -> None:
        self.refusal = None
        self.commits = None
        self.receipts = None
        self.seconds = self.brought = 0.0
        self.decision = None
        self.device_state = None
        self.who = who
        self.request = request
        self.uplink = uplink
        self.channel = channel
        self.token = token
        self.load = 0
        """Bytes of the publish, and of the names in it, where that is a large one."""
        self.charged = 0.0
        """Units that were charged for its audience before it was known."""
        self.at = time.perf_counter()
        self.before: UplinkJob | None = None
        """What the connection published before. Where that has no acknowledgement it is closed, and says all again."""
        if channel is not None and token > 0:
            self.before, channel.newest = channel.newest, self

    def refuse(self, refusal: Refusal) -> None:
        """See `Job`. What is said again, and has no id, may have been stored the first time."""
        if refusal.retry and self.who.packet is not None and self.who.packet[2]:
            refusal = undecided()
        RequestJob.refuse(self, refusal)

    def prepare(self, engine: Engine) -> None:
        """See `Job`. Nothing is committed behind what has no acknowledgement: the device will publish both again, in order."""
        before = self.before
        if before is not None and before.refusal is not None and is_unanswered(before.channel, before.refusal):
            raise undecided()
        RequestJob.prepare(self, engine)

    def done(self) -> None:
        """See `Job`."""
        self.before = None
        channel = self.channel
        if channel is not None:
            if channel.newest is self and self.refusal is None:
                channel.newest = None  # its body would stay as long as the connection
            if self.load:
                channel.link.under_way(-self.load)
        self.uplink.decided(self)


def is_unanswered(channel: Channel | None, refusal: Refusal) -> bool:
    """Whether a publish of the channel that was refused so is not acknowledged, and its connection closed.

    What may have been stored all the same has no acknowledgement in any version: a repeat with DUP is the same message.
    """
    return isinstance(refusal, Undecided) or (refusal.retry and channel is not None and channel.link.version != V5)
