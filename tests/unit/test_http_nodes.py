"""The list of all connections, as the operator pages through it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from mqtt_im.cluster import Neighbours
from mqtt_im.http.nodes import Nodes
from mqtt_im.metrics import Metrics
from tests.support.bridge import FakeLink

NAMES = ["-", "a", "a-b", "a.b", "a0", "ab", "b", "B", "~"]


class Transport:
    """Connections of these users, a few of each."""

    def __init__(self, links: list[FakeLink]) -> None:
        self._links = links
        self.asked: list[str] = []

    def all_links(self) -> list[FakeLink]:
        return self._links

    def links(self, user: str) -> list[FakeLink]:
        self.asked.append(user)
        return [link for link in self._links if link.user == user]


class Bridge:
    def delivery_of(self, link: FakeLink) -> None:
        return None


def test_pages_have_every_connection_once_and_look_at_those_of_few_users() -> None:
    links = [FakeLink(name, device) for name in reversed(NAMES) for device in ("phone", "a.b", "")]
    transport = Transport([*links, *[FakeLink(f"user{number:03}", "phone") for number in range(100)]])

    async def pages(limit: int) -> list[tuple[str, str | None]]:
        nodes = Nodes(Neighbours("n1"), cast(Any, Bridge()), cast(Any, transport), Metrics())
        found: list[tuple[str, str | None]] = []
        after = ""
        while True:
            transport.asked.clear()
            page, _ = await nodes.connections(after, limit)
            assert len(transport.asked) <= limit + 1
            found += [(fields["user"], fields["device"]) for _, fields in page]
            if len(page) < limit:
                return found
            after = page[-1][0]

    whole = asyncio.run(pages(1_000))
    assert len(whole) == len(set(whole)) == len(transport.all_links())
    for limit in (1, 2, 7):
        assert asyncio.run(pages(limit)) == whole
