"""`search`: the index says which messages (on its own thread), the ledger how they are now (in small pieces), page by page.

The searches of one user are answered one after the other, so that nobody's many searches hold up another's single one.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import Any, Final

import msgspec

from mqtt_im.core import costs
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.search.index import FOREVER, Query
from mqtt_im.search.thread import Search
from mqtt_im.search.words import phrases_of
from mqtt_im.store import queries

from .channel import Channel
from .seam import Bridge

LONGEST_S: Final = 10.0
"""After that a search answers with what it has found, and `more`."""
_PIECE: Final = 64

log = logging.getLogger(__name__)

Ask = tuple[Channel, int, Who, rq.Search]


class Searching:
    """The searches of all devices."""

    def __init__(self, bridge: Bridge, search: Search) -> None:
        self._bridge = bridge
        self._search = search
        self._lines: dict[str, deque[Ask]] = {}
        """Users whose searches are under way, with those that wait."""

    def take(self, channel: Channel, token: int, who: Who, request: rq.Search) -> None:
        """A search stands in its user's line; `Uplink.searched` has the answer."""
        line = self._lines.get(who.user)
        if line is not None:
            line.append((channel, token, who, request))
            return
        self._lines[who.user] = deque([(channel, token, who, request)])
        self._bridge.background(self._work(who.user))

    def forgotten(self) -> None:
        """A message was recalled: its words are to leave the index soon."""
        self._search.hint()

    async def _work(self, user: str) -> None:
        line = self._lines[user]
        try:
            while line:
                channel, token, who, request = line.popleft()
                self._bridge.uplinks.searched(channel, token, request, await self._answer(channel, who, request))
        finally:
            del self._lines[user]

    async def _answer(self, channel: Channel, who: Who, request: rq.Search) -> dict[str, Any] | Refusal:
        try:
            return await self._find(channel, who, request)
        except Refusal as refusal:
            return refusal
        except Exception:
            log.exception("a search could not be answered")
            return Refusal("unavailable", "the server has a fault with this request; its log tells more")

    async def _find(self, channel: Channel, who: Who, request: rq.Search) -> dict[str, Any]:
        ledger, settings = self._bridge.ledger, self._bridge.settings
        if channel.link.closed:
            return _page([], more=False)  # it waited in its line for nothing
        limit = min(request.limit or settings.max_page, settings.max_page)
        size = self._bridge.uplinks.page_bytes(channel)
        parts = await ledger.call(lambda engine: queries.searchable(engine, who, request.conv), who.user)
        query = Query(phrases_of(request.query), parts, FOREVER if request.before is None else request.before)
        items: list[msgspec.Raw] = []
        below = FOREVER
        deadline = time.monotonic() + LONGEST_S
        while below and not channel.link.closed:
            # One more than there is room for tells whether there are more.
            found = await self._search.find(query, below, limit + 1 - len(items))
            channel.link.charge(costs.of_search(found.seconds))
            below = found.below
            for start in range(0, len(found.lsns), _PIECE):
                part = found.lsns[start : start + _PIECE]
                for message in await ledger.call(partial(queries.found, who=who, lsns=part), who.user):
                    if len(items) >= limit or (items and size < len(message)):
                        return _page(items, more=True)
                    items.append(msgspec.Raw(message))
                    size -= len(message)
            if time.monotonic() > deadline:
                return _page(items, more=True)
        return _page(items, more=False)


def _page(items: list[msgspec.Raw], more: bool) -> dict[str, Any]:
    return {"op": "page", "items": items, "more": more}
