"""The bridge among those of other nodes: who is online where, and what is told from one node to another.

A user's devices may be at several nodes. Each node knows which users are online at which other one: it is told of each who
comes and goes, and of all of them when a node comes or the line between them was cut. So presence, typing, receipts and "to whom
is this to be told" are right for all nodes together. That an inbox has grown is a hint: the delivery looks at the database, and
looks by itself every `SWEEP_S` seconds, since hints may be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

from mqtt_im.cluster import Neighbours
from mqtt_im.protocol.errors import Refusal

from .audience import Audience
from .channel import Channel
from .seam import Bridge

SWEEP_S: Final = 3.0
AT_ONCE: Final = 100
"""Names that are told in one piece."""
PART: Final = 1_000
"""Users whose inboxes one sweep looks at in one piece."""


class WideAudience(Audience):
    """The same over all nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[str, set[int]] = {}
        """Users whose inbox somebody watches at other nodes, with the incarnations of these."""

    def __contains__(self, user: object) -> bool:
        return user in self.online or user in self.elsewhere or user in self.watching or user in self.watched


class Neighbourhood:
    """Lives on the event loop of a server that has neighbours."""

    def __init__(self, bridge: Bridge, neighbours: Neighbours, audience: WideAudience) -> None:
        self._bridge = bridge
        self._loop = asyncio.get_running_loop()
        self._neighbours = neighbours
        self._elsewhere = audience.elsewhere
        self._online = audience.online
        self._watching = audience.watching
        self._watched = audience.watched
        self._snapshots: dict[int, set[str]] = {}
        """What of the list of who is online at a node has come so far."""
        self._heard: set[int] = set()
        """Nodes of which it is known who is online there."""
        for kind, handler in (
            ("wake", self._woken),
            ("came", self._came),
            ("went", self._went),
            ("online", self._all_online),
            ("watches", self._watches),
            ("watching", self._all_watching),
            ("event", self._event),
            ("shown", lambda _, fields: bridge.presence.changed(fields[0], told=True)),
            ("forget", lambda _, fields: bridge.forget(*fields, told=True)),
        ):
            neighbours.on(kind, handler)
        neighbours.questions.answer("devices", lambda user: [channel.device for channel in self._online.get(user, ())])
        bridge.cursors.tells_others = True
        neighbours.on_joined.append(self._joined)
        neighbours.on_left.append(self._left)

    @property
    def knows_all(self) -> bool:
        """Whether it is known who is online at every other node. For any thread."""
        return self._neighbours.started and not self._neighbours.away and self._heard.issuperset(list(self._neighbours.others))

    async def devices_of(self, user: str) -> set[str]:
        """The user's devices that have their delivery at other nodes; of a node that does not answer within `ANSWER_S`, none."""
        answers = await self._neighbours.questions.ask_all("devices", user)
        return set(chain.from_iterable(answers.told))

    # What this node tells.

    def committed(self, users: list[str], groups: list[str], replaced: list[tuple[str, int]]) -> None:
        """The inboxes of these have grown, and these items, `(user, pos)`, hold nothing now. Called on the ledger's thread."""
        self.grown(users, groups)
        if replaced:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._bridge.telling.replaced, replaced)

    def grown(self, users: list[str], groups: list[str]) -> None:
        """Inboxes of these users, and of the members of these groups, have grown. Called on the ledger's thread."""
        for start in range(0, len(users), AT_ONCE):
            self._neighbours.tell("wake", users[start : start + AT_ONCE], [])
        if groups:
            self._neighbours.tell("wake", [], groups)

    def grown_there(self, users: Iterable[str]) -> None:
        """The inboxes of those of these users have grown who are online or watched elsewhere."""
        names = self._there(users)
        if names:
            self.grown(names, [])

    def _there(self, users: Iterable[str]) -> list[str]:
        return [user for user in users if user in self._elsewhere or user in self._watched]

    def came(self, user: str) -> None:
        """The user's first device here has its delivery."""
        self._neighbours.tell("came", user)

    def went(self, user: str, seen: int) -> None:
        """The user has no device here any more."""
        self._neighbours.tell("went", user, seen)

    def watches(self, user: str, *, on: bool) -> None:
        """Somebody watches the user's inbox here, or nobody does any more."""
        self._neighbours.tell("watches", user, on)

    def event(self, users: Iterable[str], fields: dict[str, Any]) -> None:
        """Those of these users who are online or watched elsewhere are sent an event there."""
        names = self._there(users)
        for start in range(0, len(names), AT_ONCE):
            self._neighbours.tell("event", names[start : start + AT_ONCE], fields)

    def shown(self, user: str) -> None:
        """Who may see the user's presence has changed."""
        self._neighbours.tell("shown", user)

    def forgotten(self, user: str, device: str) -> None:
        """The device is registered no more."""
        self._neighbours.tell("forget", user, device)

    def _joined(self, node: int) -> None:
        names = [user for user in self._online if self._bridge.presence.is_here(user)]
        parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)] or [[]]
        for number, part in enumerate(parts):
            self._neighbours.tell("online", part, number == 0, number == len(parts) - 1, to=node)
        watching = list(self._watching)
        for start in range(0, len(watching) or 1, AT_ONCE):
            self._neighbours.tell("watching", watching[start : start + AT_ONCE], start == 0, to=node)

    # What this node is told.

    def _woken(self, _: int, fields: list[Any]) -> None:
        users, groups = fields
        for user in users:
            self._look(user)
        for group in groups:
            for channels in (self._online, self._watching):
                for channel in chain.from_iterable(channels.values()):
                    # What waits to be offered, also to who has left the group, may not be so any more.
                    if channel.delivery is not None and channel.delivery.holds(group):
                        self._bridge.pump.look(channel)
            self._bridge.pulling.grown(group)

    def _look(self, user: str) -> None:
        for channels in (self._online, self._watching):
            for channel in channels.get(user, ()):
                self._bridge.pump.look(channel)

    def _event(self, _: int, fields: list[Any]) -> None:
        users, event = fields
        self._bridge.telling.event_here(users, event)

    def _came(self, node: int, fields: list[Any]) -> None:
        (user,) = fields
        nodes = self._elsewhere.setdefault(user, set())
        first = not nodes
        nodes.add(node)
        if first:
            self._bridge.presence.came_elsewhere(user)

    def _went(self, node: int, fields: list[Any]) -> None:
        user, seen = fields
        nodes = self._elsewhere.get(user)
        if nodes is None or node not in nodes:
            return
        nodes.discard(node)
        if not nodes:
            del self._elsewhere[user]
            self._bridge.presence.went_elsewhere(user, seen)

    def _all_online(self, node: int, fields: list[Any]) -> None:
        names, begins, ends = fields
        if begins:
            self._snapshots[node] = set()
        found = self._snapshots.get(node)
        if found is None:
            return
        found.update(names)
        if ends:
            del self._snapshots[node]
            self._heard.add(node)
            self._gone_from(node, keep=found)
            for user in found:
                self._came(node, [user])

    def _watches(self, node: int, fields: list[Any]) -> None:
        user, on = fields
        if on:
            self._watched.setdefault(user, set()).add(node)
        elif user in self._watched:
            self._watched[user].discard(node)
            if not self._watched[user]:
                del self._watched[user]

    def _all_watching(self, node: int, fields: list[Any]) -> None:
        names, begins = fields
        for user in list(self._watched) if begins else ():
            self._watches(node, [user, False])
        for user in names:
            self._watches(node, [user, True])

    def _left(self, node: int) -> None:
        self._snapshots.pop(node, None)
        self._heard.discard(node)
        self._gone_from(node, keep=set())
        self._all_watching(node, [[], True])

    def _gone_from(self, node: int, keep: set[str]) -> None:
        gone = [user for user, nodes in self._elsewhere.items() if node in nodes and user not in keep]
        for user in gone:
            self._went(node, [user, self._bridge.ledger.clock.told()])

    # The sweep.

    async def sweep(self) -> None:
        """Every few seconds, find inboxes that have grown without a word."""
        while True:
            await asyncio.sleep(SWEEP_S)
            with contextlib.suppress(Refusal):
                await self._bridge.pulling.sweep()
            names = list({*self._online, *self._watching})
            for start in range(0, len(names), PART):
                await self._sweep(names[start : start + PART])

    async def _sweep(self, names: list[str]) -> None:
        def read(engine: Any) -> dict[str, int]:
            heads: dict[str, int] = engine.state.heads(names)
            return heads

        try:
            heads = await self._bridge.ledger.call(read)
        except Refusal:
            return
        for user, head in heads.items():
            for channels in (self._online, self._watching):
                for channel in channels.get(user, ()):
                    if _lags(channel, head):
                        self._bridge.pump.look(channel)


def _lags(channel: Channel, head: int) -> bool:
    delivery = channel.delivery
    return delivery is not None and not delivery.waiting and delivery.head < head
