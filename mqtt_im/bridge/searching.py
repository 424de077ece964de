"""`search`: the index says which messages (on its own thread), the ledger how they are now (in small pieces), page by page.

The searches of one user are answered one after the other, and the next one begins when the one before is paid for, so that
nobody's many searches hold up another's single one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from functools import partial
from typing import Any, Final

import msgspec

from mqtt_im.core import costs
from mqtt_im.core.rules import Who
from mqtt_im.logs import RateLimited
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.search.finding import FOREVER, Query
from mqtt_im.search.thread import Search
from mqtt_im.search.words import phrases_of
from mqtt_im.shares import Bounds
from mqtt_im.store.interface import Readable
from mqtt_im.store.queries import pages, reach

from .channel import Channel
from .seam import Bridge

LONGEST_S: Final = 10.0
"""After that a search answers with what it has found, and `more`."""
_PIECE: Final = 64
KNOWN_BYTES: Final = 64 << 20
"""Of the conversations, of all users together, that are remembered from one search to the next."""

_log = RateLimited(logging.getLogger(__name__))

Ask = tuple[Channel, int, Who, rq.Search]


class _Known:
    """What one user may search, as far as it was learnt."""

    __slots__ = ("place", "reach")

    def __init__(self) -> None:
        self.reach = reach.Reach()
        self.place = reach.Place()


class Searching:
    """The searches of all devices."""

    def __init__(self, bridge: Bridge, search: Search) -> None:
        self._bridge = bridge
        self._search = search
        self._lines: dict[str, deque[Ask]] = {}
        """Users whose searches are under way, with those that wait."""
        self._known: OrderedDict[str, _Known] = OrderedDict()
        """By user, the one who has searched last at the end."""
        self._bytes = 0
        """Of what is in there."""
        self._most = Bounds(bridge.settings.memory_mb).of(KNOWN_BYTES)

    def take(self, channel: Channel, token: int, who: Who, request: rq.Search) -> None:
        """A search stands in its user's line; `Uplink.searched` has the answer."""
        line = self._lines.get(who.user)
        if line is not None:
            line.append((channel, token, who, request))
            return
        self._lines[who.user] = deque([(channel, token, who, request)])
        self._bridge.background(self._work(who.user))

    def recalled(self, conv: str, seq: int) -> None:
        """This message was recalled: its words are to leave the index soon."""
        self._search.take_back(conv, seq)

    async def _work(self, user: str) -> None:
        line = self._lines[user]
        try:
            while line:
                channel, token, who, request = line.popleft()
                self._bridge.uplinks.searched(channel, token, request, await self._answer(channel, who, request))
                if line:
                    await asyncio.sleep(line[0][0].link.owes())
        finally:
            del self._lines[user]

    async def _answer(self, channel: Channel, who: Who, request: rq.Search) -> dict[str, Any] | Refusal:
        try:
            return await self._find(channel, who, request)
        except Refusal as refusal:
            return refusal
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the log tells more
            _log.exception("a search could not be answered", error)
            return Refusal("unavailable", "the server has a fault with this request; its log tells more")

    async def _find(self, channel: Channel, who: Who, request: rq.Search) -> dict[str, Any]:
        ledger, settings = self._bridge.ledger, self._bridge.settings
        if channel.link.closed:
            return _page([], more=False)  # it waited in its line for nothing
        limit = min(request.limit or settings.max_page, settings.max_page)
        size = self._bridge.uplinks.page_bytes(channel)
        if (conv := request.conv) is not None:
            within = reach.Reach(await ledger.call(lambda engine: reach.searchable(engine, who, conv), who.user))
        else:
            within = await self._everything(channel)
        query = Query(phrases_of(request.query), within, FOREVER if request.before is None else request.before)
        items: list[msgspec.Raw] = []
        below = FOREVER
        deadline = time.monotonic() + LONGEST_S
        while below and not channel.link.closed:
            # One more than there is room for tells whether there are more.
            found = await self._search.find(query, below, limit + 1 - len(items))
            channel.link.charge(costs.of_time(found.seconds))
            below = found.below
            for start in range(0, len(found.lsns), _PIECE):
                part = found.lsns[start : start + _PIECE]
                for message in await ledger.call(partial(pages.found, who=who, lsns=part), who.user):
                    if len(items) >= limit or (items and size < len(message)):
                        return _page(items, more=True)
                    items.append(msgspec.Raw(message))
                    size -= len(message)
            if time.monotonic() > deadline:
                return _page(items, more=True)
        return _page(items, more=False)

    async def _everything(self, channel: Channel) -> reach.Reach:
        """What the user may read of all conversations that the user is or was in."""
        known = self._known.get(channel.user) or _Known()
        done = False
        while not done:
            step, seconds = await self._bridge.ledger.call(partial(_learn, user=channel.user, place=known.place), channel.user)
            channel.link.charge(costs.of_time(seconds))
            known.place, done = step.place, step.done
            self._bytes -= known.reach.bytes if self._known.get(channel.user) is known else 0
            known.reach.add(step.parts)
            self._keep(channel.user, known)
        return known.reach

    def _keep(self, user: str, known: _Known) -> None:
        """Remember this, and as much of what others may search as there is room for."""
        self._known[user] = known
        self._known.move_to_end(user)
        self._bytes += known.reach.bytes
        while self._bytes > self._most:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= forgotten.reach.bytes


def _learn(engine: Readable, user: str, place: reach.Place) -> tuple[reach.Step, float]:
    began = time.thread_time()
    return reach.learn(engine, user, place), time.thread_time() - began


def _page(items: list[msgspec.Raw], more: bool) -> dict[str, Any]:
    return {"op": "page", "items": items, "more": more}
