"""The connections and figures of all nodes, as the operator sees them at any: each node is asked for its own."""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import psutil

from mqtt_im.bridge.service import Bridge
from mqtt_im.cluster import Neighbours
from mqtt_im.metrics import Metrics
from mqtt_im.transport.embedded import EmbeddedTransport


class Place(NamedTuple):
    """Where a device is connected; `since` in ms since 1970."""

    since: int
    address: str
    protocol: str
    node: str


class Nodes:
    """Asks for what is connected, here and elsewhere."""

    def __init__(self, neighbours: Neighbours, bridge: Bridge, transport: EmbeddedTransport, metrics: Metrics) -> None:
        self._neighbours = neighbours
        self._bridge = bridge
        self._transport = transport
        self._metrics = metrics
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._questions = neighbours.questions
        self._questions.answer("connections", self._connections)
        self._questions.answer("places", self._places)
        self._questions.answer("close", self._close)
        self._questions.answer("figures", lambda: [self.name, self._figures()])

    @property
    def several(self) -> bool:
        """There are other nodes."""
        return bool(self._neighbours.others)

    @property
    def name(self) -> str:
        """Of this node."""
        return self._neighbours.name

    async def figures(self) -> tuple[dict[str, dict[str, float]], list[str]]:
        """What each node is doing, by its name; and the nodes that do not answer."""
        answers = await self._questions.ask_all("figures")
        return {self.name: self._figures(), **dict(answers.told)}, answers.silent

    async def connections(self, after: str, limit: int) -> tuple[list[tuple[str, Any]], list[str]]:
        """The first `limit` connections behind `after`, each with what `after` takes; and the nodes that do not answer."""
        answers = await self._questions.ask_all("connections", after, limit)
        found = self._connections(after, limit)
        for told in answers.told:
            found += told
        return [(key, fields) for key, fields in sorted(found, key=lambda entry: entry[0])[:limit]], answers.silent

    async def places(self, user: str) -> tuple[dict[str, Place], list[str]]:
        """Where the user's devices are connected, by device; and the nodes that do not answer."""
        answers = await self._questions.ask_all("places", user)
        found: dict[str, Place] = {}
        for told in [self._places(user), *answers.told]:
            for device, place in told.items():
                found[device] = max(found.get(device, Place(-1, "", "", "")), Place(*place))
        return found, answers.silent

    async def close(self, user: str, reason: str) -> list[str]:
        """The user's connections are closed; returns the nodes that do not answer, and may have some yet."""
        self._close(user, reason)
        return (await self._questions.ask_all("close", user, reason)).silent

    # Of this node.

    def _figures(self) -> dict[str, float]:
        return {
            "connections": sum(self._transport.protocols.values()),
            "messages": int(self._metrics.total("messages_committed")),
            "ledger_queue_jobs": self._bridge.ledger.queued,
            "cpu_percent": self._process.cpu_percent(),
            "memory_bytes": self._process.memory_info().rss,
        }

    def _connections(self, after: str, limit: int) -> list[Any]:
        node = self.name
        # All keys of a user begin with the name and a stroke, and so stand before the name and the character behind it.
        users = {link.user for link in self._transport.all_links()}
        some = heapq.nsmallest(limit + 1, [f"{user}/" for user in users if user + "0" > after])
        links = {
            f"{link.user}/{link.device}/{link.since}/{id(link):x}/{node}": link
            for user in some
            for link in self._transport.links(user[:-1])
        }
        found = []
        for key in heapq.nsmallest(limit, (key for key in links if key > after)):
            link = links[key]
            delivery = self._bridge.delivery_of(link)
            fields = {
                "user": link.user,
                "device": link.device or None,
                "address": link.address,
                "since": link.since,
                "protocol": link.protocol,
                "unacknowledged": 0 if delivery is None else delivery.unacknowledged,
                "node": node,
            }
            found.append([key, fields])
        return found

    def _places(self, user: str) -> dict[str, Place]:
        node = self.name
        links = self._transport.links(user)
        return {link.device: Place(link.since, link.address, link.protocol, node) for link in links if link.device}

    def _close(self, user: str, reason: str) -> bool:
        for link in self._transport.links(user):
            link.close(reason)
        return True
