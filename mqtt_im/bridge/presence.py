"""Presence: who is connected, told to those who share a conversation (PROTOCOL §2).

A user is online while any device has its delivery. Going offline is told a moment later, so that a device that comes back at once
was never away. Nothing is stored: what a watcher first sees follows from who is connected and when devices were last seen, so
after a restart nobody stays falsely online.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mqtt_im.core import costs
from mqtt_im.protocol.codec import encode_json
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.store.queries import belongings, visibility
from mqtt_im.transport.api import Link

from .nearby import Nearby
from .seam import Bridge

OFFLINE_DELAY_S = 2.0
AT_ONCE: Final = 200
"""Watchers that are asked about, and told, in one piece."""


class Presence:
    """The watchers of each user, and the users who have just gone."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._watchers: dict[str, dict[Link, int]] = {}
        self._watched: dict[Link, set[str]] = {}
        self._going: dict[str, tuple[asyncio.TimerHandle, int]] = {}
        self._telling: dict[str, int | None] = {}
        """Users whose watchers are being told; with when they were last seen, where they are to be told again."""
        self.nearby = Nearby(bridge)
        self.listener: Callable[[str, bool, int], None] = lambda *_: None
        """Is told of each user who has come, to whichever node, or has gone from all of them, when (ms since 1970)."""

    def stop(self) -> None:
        """No timer is left."""
        for timer, _ in self._going.values():
            timer.cancel()
        self._going.clear()

    async def may_watch(self, user: str, other: str) -> bool:
        """Whether `user` may subscribe to the presence of `other`: both are in one conversation."""
        try:
            return bool(await self._bridge.ledger.call(lambda engine: visibility.shares_conversation(engine, user, other), user))
        except Refusal:
            return False

    def watch(self, link: Link, other: str, qos: int, tell: bool = True) -> None:
        """The link is told what is, unless it does not want that (`tell`), and from now on what changes."""
        self._watchers.setdefault(other, {})[link] = qos
        self._watched.setdefault(link, set()).add(other)
        if tell:
            self._tell(other, [link], retained=True)

    def unwatch(self, link: Link, other: str) -> None:
        """The link is told nothing more of this user."""
        watchers = self._watchers.get(other)
        if watchers is not None:
            watchers.pop(link, None)
            if not watchers:
                del self._watchers[other]
        self._watched.get(link, set()).discard(other)

    def left(self, link: Link) -> None:
        """The link is gone."""
        for other in list(self._watched.get(link, ())):
            self.unwatch(link, other)
        self._watched.pop(link, None)

    def came(self, user: str) -> None:
        """A user's first device has its delivery."""
        going = self._going.pop(user, None)
        if going is not None:
            going[0].cancel()
            return
        around = self._bridge.neighbourhood
        if around is not None:
            around.came(user)
            if user in self._bridge.audience.elsewhere:
                return
        self.listener(user, True, self._bridge.ledger.clock.told())
        self._tell(user, self._links(user))
        self.nearby.changed(user)

    def came_elsewhere(self, user: str) -> None:
        """A user who was not online at any other node is at one."""
        if not self.is_here(user):
            self.listener(user, True, self._bridge.ledger.clock.told())
            self._tell(user, self._links(user))
            self.nearby.changed(user)

    def went_elsewhere(self, user: str, seen: int) -> None:
        """A user is online at no other node any more, since `seen` (ms since 1970)."""
        if not self.is_here(user):
            self.listener(user, False, seen)
            self._tell(user, self._links(user), seen=seen)
            self.nearby.changed(user, seen)

    def went(self, user: str) -> None:
        """A user's last device that had its delivery is gone."""
        timer = asyncio.get_running_loop().call_later(OFFLINE_DELAY_S, self._gone, user)
        self._going[user] = (timer, self._bridge.ledger.clock.told())

    async def settle(self, user: str) -> None:
        """Who may know has been told that the user is gone, though it may come back: nobody may know later. Raises `Refusal`."""
        if user in self._going:
            self._going[user][0].cancel()
            self._gone(user)
        while user in self._telling:
            await self._bridge.ledger.call(lambda _: None, user)  # behind the look at who of them may know

    def _gone(self, user: str) -> None:
        _, seen = self._going.pop(user)
        around = self._bridge.neighbourhood
        if around is not None:
            around.went(user, seen)
            if user in self._bridge.audience.elsewhere:
                return
        self.listener(user, False, seen)
        self._tell(user, self._links(user), seen=seen)
        self.nearby.changed(user, seen)

    def changed(self, user: str, *, told: bool = False) -> None:
        """A user's settings or blocks have changed: who may see the user from now on is told.

        So are other nodes, unless one of them has told it (`told`).
        """
        if self._bridge.neighbourhood is not None and not told:
            self._bridge.neighbourhood.shown(user)
        self._tell(user, self._links(user))
        self.nearby.changed(user)

    def is_online(self, user: str) -> bool:
        """Whether the user counts as online: a device has its delivery, or had it a moment ago."""
        return user in self._bridge.audience.elsewhere or self.is_here(user)

    def is_here(self, user: str) -> bool:
        """The same, of devices at this node."""
        return user in self._going or self._bridge.audience.reachable(user)

    def _links(self, user: str) -> list[Link]:
        return list(self._watchers.get(user, ()))

    def _tell(self, user: str, links: list[Link], retained: bool = False, seen: int = 0) -> None:
        """Tell these links, a few at a time. Who comes and goes while many are being told is told of once more at the end."""
        if not links:
            return
        if retained:
            self._ask(user, links, seen, links[0].user, retained=True)
        elif user in self._telling:
            self._telling[user] = seen
        else:
            self._telling[user] = None
            if self._bridge.transport is not None:
                self._bridge.transport.charge(user, costs.of_audience(len(links)))
            self._go_on(user, links, seen)

    def _go_on(self, user: str, links: list[Link], seen: int) -> None:
        if links:
            self._ask(user, links[:AT_ONCE], seen, user, then=links[AT_ONCE:])
            return
        again = self._telling.pop(user)
        if again is not None:
            self._tell(user, self._links(user), seen=again)

    def _ask(
        self, user: str, links: list[Link], seen: int, line: str, *, retained: bool = False, then: list[Link] | None = None
    ) -> None:
        """Ask who of them may know, in the line of the user who causes it, and tell them; then the others."""
        names = {link.user for link in links}

        def read(engine: Readable) -> tuple[set[str], int]:
            allowed = {name for name in names if visibility.sees_presence(engine, name, user)}
            return allowed, seen or belongings.last_seen(engine, user)

        def notify(job: CallJob) -> None:
            try:
                if job.refusal is None:
                    allowed, last_seen = job.result
                    self._publish(user, links, allowed, last_seen, retained)
            finally:  # also after a mistake: else nobody would be told of the user ever again
                if then is not None:
                    self._go_on(user, then, seen)

        self._bridge.ledger.submit(CallJob(read, notify, line))

    def _publish(self, user: str, links: list[Link], allowed: set[str], last_seen: int, retained: bool) -> None:
        online = self.is_online(user)
        if not online and not last_seen:
            return  # a user who was never connected has no presence
        shown = encode_json({"state": "online"} if online else {"state": "offline", "last_seen": last_seen})
        topic = self._bridge.topics.presence(user).encode()
        for link in links:
            if link.closed or link not in self._watchers.get(user, {}):
                continue
            if link.user in allowed:  # whose right has ended is told nothing, not even that
                link.publish(topic, shown, 0, False, retained)
