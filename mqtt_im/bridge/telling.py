"""What the ledger has committed is told: items, receipts and events to the channels of those to whom they go.

Everything here runs on the event loop. What goes to many goes to a few of them in each turn of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from mqtt_im.core.records import AMENDMENTS, MESSAGES, Edited, Message, Reacted, Recalled
from mqtt_im.protocol.codec import encode_json
from mqtt_im.store.commits import Commit, Receipt
from mqtt_im.store.jobs.job import Job

from .channel import Channel
from .claims import Claims
from .seam import Bridge
from .slices import Slices, surely
from .taking_back import TakingBack

T = TypeVar("T")

CROWD = 100
"""More recipients are not served in one turn of the loop."""


class Telling:
    """The part of one bridge."""

    def __init__(self, bridge: Bridge, claims: Claims, taking_back: TakingBack, slices: Slices) -> None:
        self._bridge = bridge
        self._claims = claims
        self._taking_back = taking_back
        self._online, self._watching = bridge.audience.online, bridge.audience.watching
        self._committed = bridge.metrics.cell("messages_committed")
        self._outflow = bridge.ledger.gathering.outflow
        self._lives, self._events, self._settling = slices.line(), slices.line(), slices.line()
        """Messages to many, and events: a few recipients in each turn, so that nobody else waits for a large group."""
        self._telling: list[Commit] = []
        """Messages to many that have not come to all of them."""

    def tell(self, job: Job) -> None:
        """Bring a job's committed records, and the receipts that follow from them, to who is connected."""
        if job.commits is not None:
            for commit in job.commits:
                record = commit.record
                if isinstance(record, MESSAGES):
                    self._committed[0] += 1
                    if type(record) is Message and record.extra is not None and "replaced" in record.extra:
                        self.replaced(record.extra["replaced"])
                elif isinstance(record, AMENDMENTS):
                    self._changed(commit, record)
                if commit.to:
                    self.live(commit)
                if commit.members:
                    self._bridge.pulling.grown(record.conv)  # type: ignore[union-attr]
        if job.receipts is not None:
            for receipt in job.receipts:
                self._receipt(receipt)

    def replaced(self, items: Sequence[Sequence[Any]]) -> None:
        """These items hold nothing any more: who has them in memory fetches them again, and nobody can come to have them."""
        gone: set[tuple[str, int]] = set(map(tuple, items))
        for other in self._telling:
            if other.entry is not None and other.entry.keyed and not gone.isdisjoint(other.to):
                other.entry = None
        for here in (self._online, self._watching):
            if here:
                for user, _ in gone:
                    for channel in here.get(user, ()):
                        if channel.delivery is not None:
                            channel.delivery.amended()
        if len(gone) > CROWD:
            self._settling.start(self._settle_in_turn(gone))
        else:
            self._claims.settle(gone)

    def _settle_in_turn(self, gone: set[tuple[str, int]]) -> Iterator[int]:
        """Until they are settled they are offered to nobody, as before: what is read anew is another entry."""
        left = iter(gone)
        while some := list(islice(left, CROWD)):
            self._claims.settle(some)
            yield CROWD // 4

    def _changed(self, commit: Commit, record: Edited | Recalled | Reacted) -> None:
        """Before anything else is sent: what a delivery has in its hand may not be so any more."""
        if isinstance(record, Reacted):
            self._reacted(commit, record)
            return
        for user in (*(user for user, _ in commit.to), *commit.former):
            for channel in self.channels_of(user):
                if channel.delivery is not None:
                    channel.delivery.amended()
        if commit.members:
            for channels in (self._online, self._watching):
                for channel in chain.from_iterable(channels.values()):
                    if channel.delivery is not None and channel.delivery.holds(record.conv, record.seq):
                        channel.delivery.amended()
        for other in self._telling:
            if other.record.conv == record.conv:  # type: ignore[union-attr]
                other.entry = None
        if isinstance(record, Recalled):
            self._taking_back.recalled(record.conv, record.seq)
            if (searching := self._bridge.searching) is not None:
                searching.recalled(record.conv, record.seq)

    def _reacted(self, commit: Commit, record: Reacted) -> None:
        """The message shows its reactions, and nothing else does: else a crowd would fetch each reaction to one of it."""
        for user in (*(user for user, _ in commit.to), *commit.former):
            for channel in self.channels_of(user):
                if channel.delivery is not None and channel.delivery.shows(record.conv, record.seq):
                    channel.delivery.amended()
        for other in self._telling:
            if isinstance(other.record, MESSAGES) and (other.record.conv, other.record.seq) == (record.conv, record.seq):
                other.entry = None

    def live(self, commit: Commit) -> None:
        """Hand the item to the channels of those to whom it goes."""
        entry = commit.entry
        if len(commit.to) > CROWD:
            self._telling.append(commit)
            self._outflow.add(len(commit.to))
            self._lives.start(self._live_in_turn(commit))
            return
        online, pump_soon = None if self._watching else self._online, self._bridge.pump.soon
        for user, pos in commit.to:
            for channel in self.channels_of(user) if online is None else online.get(user, ()):
                if (delivery := channel.delivery) is not None:
                    delivery.live(pos, entry)
                    if not channel.ready:
                        pump_soon(channel)

    def _live_in_turn(self, commit: Commit) -> Iterator[int]:
        """The same for a large group, a few recipients at a time. A later item may come before it; then both are fetched."""
        yield from self._in_turn(partial(self._live_one, commit), commit.to)
        self._telling.remove(commit)

    def _live_one(self, commit: Commit, to: tuple[str, int]) -> int:
        user, pos = to
        for channel in self.channels_of(user):
            if channel.delivery is not None:
                channel.delivery.live(pos, commit.entry)
                if not channel.ready:
                    self._bridge.pump.in_turn(channel)
        return 1

    def _in_turn(self, act: Callable[[T], int], each: Sequence[T]) -> Iterator[int]:
        """`act` for each of these, which are counted as still to be told."""
        for one in each:
            cost = surely(act, one)
            self._outflow.done(1)
            yield cost

    def channels_of(self, user: str) -> Sequence[Channel]:
        """The channels here to which the user's items come."""
        online, watching = self._online.get(user, ()), self._watching
        return online if not watching else (*online, *watching.get(user, ()))

    def _receipt(self, receipt: Receipt) -> None:
        fields: dict[str, Any] = {"op": "receipt", "conv": receipt.conv, "by": receipt.by}
        if receipt.delivered:
            fields["delivered"] = receipt.delivered
        if receipt.read:
            fields["read"] = receipt.read
        self.event(receipt.to, fields)

    def event(self, users: list[str], fields: dict[str, Any]) -> None:
        """Send an event to all connected devices of these users."""
        if (neighbourhood := self._bridge.neighbourhood) is not None:
            neighbourhood.event(users, fields)
        self.event_here(users, fields)

    def event_here(self, users: list[str], fields: dict[str, Any]) -> None:
        """The same for those that are connected to this node."""
        payload = encode_json(fields)
        if len(users) > CROWD:
            self._outflow.add(len(users))
            self._events.start(self._in_turn(partial(self._event_one, payload), users))
            return
        for user in users:
            self._event_one(payload, user)

    def _event_one(self, payload: bytes, user: str) -> int:
        for channel in self.channels_of(user):
            channel.event(payload)
        return 3
