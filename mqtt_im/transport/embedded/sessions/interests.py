"""Which filters of plain topics each node has: the others are told of this one's, and this one of theirs.

A SUBSCRIBE is answered when the other nodes know of it, so who publishes after that reaches the subscriber.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.sessions.elsewhere import Elsewhere

MAX_FILTERS: Final = 10_000
"""A node with more filters than that is sent everything, so that no neighbour has to remember more of it."""
MAX_FILTER_BYTES: Final = 1_000
"""Of a longer filter the others are told a shorter one that matches more."""
RETRY_S: Final = 1.0
START_S: Final = 3.0
"""So long a start waits for what other nodes have subscribed."""


class Interests:
    """Lives on the event loop."""

    def __init__(
        self, neighbours: Neighbours, elsewhere: Elsewhere, background: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        """What other nodes have subscribed goes into `elsewhere`."""
        self._neighbours = neighbours
        self._elsewhere = elsewhere
        self._background = background
        self._here: Counter[str] = Counter()
        self._told: set[str] = set()
        """Filters of this node that the others know."""
        self._changed: set[str] = set()
        self._turn = asyncio.Lock()
        self.open = False
        """This node serves clients, and the others may know."""
        for kind, handler in (
            ("interest", self._on_interest),
            ("interests", self._on_interests),
            ("interests?", self._on_asked),
        ):
            neighbours.on(kind, handler)
        neighbours.on_joined.append(self._joined)

    async def start(self) -> None:
        """What is subscribed elsewhere is known, as far as others have answered."""
        ask = self._neighbours.questions.ask
        asking = [asyncio.ensure_future(ask("interests?", node)) for node in self._neighbours.others]
        if asking:
            _, late = await asyncio.wait(asking, timeout=START_S)
            for each in late:
                each.cancel()
        self.open = True
        for node in self._neighbours.others:
            self._tell_all(node)

    @property
    def shares(self) -> bool:
        """Whether a session that is here has a shared subscription."""
        return any(each.startswith("$share/") for each in self._here)

    # Of this node.

    def subscribed(self, topic_filter: str) -> None:
        """A session that is here has subscribed; `confirm` has to be awaited before it is told so."""
        self._here[topic_filter] += 1
        if self._here[topic_filter] == 1:
            self._changed.add(topic_filter)

    def unsubscribed(self, topic_filter: str) -> None:
        """A session that is here has this filter no more; the others know it a little later."""
        self._here[topic_filter] -= 1
        if not self._here[topic_filter]:
            del self._here[topic_filter]
            first = not self._changed
            self._changed.add(topic_filter)
            if first:
                self._background(self._later())

    async def _later(self) -> None:
        await asyncio.sleep(RETRY_S)
        await self.confirm()

    async def confirm(self) -> None:
        """The other nodes that serve clients, and live, know what is subscribed here."""
        async with self._turn:
            self._changed.clear()
            wanted = self._wanted()
            more, less = sorted(wanted - self._told), sorted(self._told - wanted)
            self._told = wanted
            if more or less:
                await self.tell_everybody("interest", more, less)

    async def tell_everybody(self, kind: str, *fields: Any) -> None:
        """Those that serve clients know it; those that are about to come across it."""
        serving = list(self._elsewhere.filters)
        for node in self._neighbours.others:
            if node not in self._elsewhere.filters:
                self._neighbours.tell(kind, 0, *fields, to=node)
        await asyncio.gather(*(self._neighbours.questions.ask(kind, node, *fields) for node in serving))

    def _wanted(self) -> set[str]:
        if len(self._here) > MAX_FILTERS:
            return {"#", *(each for each in self._here if each.startswith("$share/"))}
        return {_short(each) for each in self._here}

    def _tell_all(self, node: int) -> None:
        self._told = self._wanted()
        self._neighbours.tell("interests", sorted(self._told), to=node)

    def _joined(self, node: int) -> None:
        if self.open:
            self._tell_all(node)

    def _on_asked(self, node: int, fields: list[Any]) -> None:
        if self.open:
            self._tell_all(node)
        self._neighbours.questions.done(node, fields[0])

    # Of the others.

    def _on_interests(self, node: int, fields: list[Any]) -> None:
        self._elsewhere.forget(node)
        self._elsewhere.subscribe(node, fields[0])

    def _on_interest(self, node: int, fields: list[Any]) -> None:
        number, more, less = fields
        self._elsewhere.unsubscribe(node, less)
        self._elsewhere.subscribe(node, more)
        self._neighbours.questions.done(node, number)


def _short(topic_filter: str) -> str:
    """The filter, or a shorter one that matches all that it does."""
    if len(topic_filter) <= MAX_FILTER_BYTES or topic_filter.startswith("$share/"):
        return topic_filter
    levels = topic_filter[:MAX_FILTER_BYTES].split("/")[:-1]
    return "/".join([*levels, "#"])
