"""Presence for those who subscribe to nothing: streams are told of everybody who shares a conversation with their user.

Who that is, is asked of the ledger for each change, a few users at a time, and only while there are streams: a storm of
reconnects takes a bounded part of the ledger's time, however many conversations everybody has.
"""

from __future__ import annotations

from collections.abc import Collection
from time import thread_time
from typing import Any, Final

from mqtt_im.core import costs
from mqtt_im.protocol.codec import encode_json
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.store.queries import belongings, visibility
from mqtt_im.transport.api import Link

from .seam import Bridge

TOPIC: Final = b"presence"
"""What streams are told under, in place of a topic."""
AT_ONCE: Final = 16
"""Changes that one question to the ledger is about …"""
STEP_S: Final = 0.005
"""… unless those before them took so long, in seconds of its thread."""


class Nearby:
    """The streams that are told of presence, by user, and the changes that they have not been told of."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._links: dict[str, list[Link]] = {}
        self._changed: dict[str, tuple[int, list[str] | None]] = {}
        """Users, when they were last seen, 0 where the store knows, and who has still to be told; None: all."""
        self._asking = False

    def add(self, link: Link) -> None:
        """From now on this stream is told; first of who is online now."""
        self._links.setdefault(link.user, []).append(link)
        elsewhere = self._bridge.audience.elsewhere
        self._begin(link, {*self._bridge.online, *elsewhere} if elsewhere else self._bridge.online)

    def _begin(self, link: Link, online: Collection[str], *, rest: bool = False) -> None:
        """Tell it of these, a step at a time: who has had very many conversations is compared with them one by one.

        `rest`: former steps have left them.
        """

        def read(engine: Readable) -> tuple[list[str], list[str], float]:
            began = thread_time()
            return *visibility.nearby_online(engine, link.user, online, rest=rest), thread_time() - began

        def notify(job: CallJob) -> None:
            if job.refusal is None:
                names, left, seconds = job.result
                if self._bridge.transport is not None:
                    self._bridge.transport.charge(link.user, costs.of_time(seconds))
                for name in names:
                    if self._bridge.presence.is_online(name):  # else it went meanwhile, and that was told before this step
                        self._publish([link], name, {"state": "online"})
                if left and not link.closed:
                    self._begin(link, left, rest=True)

        self._bridge.ledger.submit(CallJob(read, notify, link.user))

    def remove(self, link: Link) -> None:
        """This stream is gone."""
        links = self._links.get(link.user)
        if links is not None and link in links:
            links.remove(link)
            if not links:
                del self._links[link.user]

    def changed(self, user: str, seen: int = 0) -> None:
        """A user has come, has gone (at `seen`, ms since 1970), or shows less or more of it."""
        if self._links:
            self._changed.pop(user, None)
            self._changed[user] = seen, None
            if not self._asking:
                self._ask()

    def _ask(self) -> None:
        users = {name: self._changed.pop(name) for name in list(self._changed)[:AT_ONCE]}
        self._asking = True

        def read(engine: Readable) -> list[tuple[str, list[str], int, list[str], float]]:
            """As many of them as there is time for."""
            told, begin, now = [], thread_time(), 0.0
            for name, (seen, among) in users.items():
                if now < STEP_S:
                    watching = self._links if among is None else among
                    found, rest = visibility.seen_by(engine, name, watching, rest=among is not None)
                    before, now = now, thread_time() - begin
                    told.append((name, found, seen or belongings.last_seen(engine, name), rest, now - before))
            return told

        def notify(job: CallJob) -> None:
            self._asking = False
            try:
                if job.refusal is None:
                    for name, seen_by, at, rest, seconds in job.result:
                        self._charge(name, seconds)
                        seen, _ = users.pop(name)
                        if rest:
                            self._changed.setdefault(name, (seen, rest))
                        self._tell(name, seen_by, at)
                    for name, change in users.items():
                        self._changed.setdefault(name, change)
            finally:  # also after a mistake
                if self._changed and self._links:
                    self._ask()

        self._bridge.ledger.submit(CallJob(read, notify))

    def _charge(self, user: str, seconds: float) -> None:
        """Coming and going is paid for as a login; what is beyond that is paid for here."""
        if (units := costs.of_more_time(seconds, costs.LOGIN)) and self._bridge.transport is not None:
            self._bridge.transport.charge(user, units)

    def _tell(self, user: str, seen_by: list[str], at: int) -> None:
        online = self._bridge.presence.is_online(user)
        state: dict[str, Any] = {"state": "online"} if online else {"state": "offline", "last_seen": at}
        for name in seen_by:
            self._publish(self._links.get(name, ()), user, state)

    @staticmethod
    def _publish(links: Any, user: str, state: dict[str, Any]) -> None:
        payload = encode_json({"user": user, **state})
        for link in links:
            if not link.closed and link.writable:
                link.publish(TOPIC, payload, 0)
