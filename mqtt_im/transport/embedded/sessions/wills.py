"""Wills whose delay runs (MQTT5-3.1.3.2.2): kept on disk, so that a restart of the server does not lose them.

Among several nodes those of connected clients are kept too: where a node dies, another one publishes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mqtt_im.mqtt.packets import Will
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.away import Away
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.session import Key, is_nameless

Fire = Callable[[Key, str, Will], None]
"""Publishes the will of a session, and of the device that it is, if any."""


USUAL_BYTES: Final = 16 << 20
"""Of all wills whose delay runs."""
_WILL_BYTES: Final = 500
"""Of each, beside what it says."""


class Wills:
    """At most one for each session, since it has one connection at a time.

    Where they are too much for the memory, the sessions whose delay has run for longest end, and with them the delay.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.fire: Fire = lambda *_: None
        """Set before the first client comes."""
        self.end_session: Callable[[Key], Coroutine[Any, Any, None]]
        """Ends a session whose client is away. Set before the first client comes."""
        self._away = Away(ground.bounds.of(USUAL_BYTES))
        self._running: dict[Key, tuple[asyncio.TimerHandle, str, Will]] = {}

    async def start(self) -> None:
        """Go on with what was running when the server ended; what is due by now is published at once."""
        rows = await self._ground.store.look(self._ground.store.wills)
        for user, name, device, due, topic, payload, qos, retain, expiry, properties in rows:
            will = Will(topic, bytes(payload), qos, bool(retain), 0, expiry, bytes(properties))
            self._run((user, name), device, will, due / 1000 - self._ground.now())

    def keep(self, key: Key, device: str, will: Will | None, expiry: int) -> bool:
        """A client has come, with this will; where there are other nodes, they know it with the next transaction, until `forget`.

        Returns whether it is so.
        """
        if will is None or not self._ground.store.shared or is_nameless(key[1]):
            return False
        self.cancel(key)  # before, since it is of the same key
        row = (*key, device, min(will.delay, expiry), will.topic, will.payload, will.qos, bool(will.retain), will.expiry)
        self._ground.store.write(sql.KEEP_TESTAMENT, *row, will.handed_on)
        return True

    def forget(self, key: Key) -> None:
        """The client has gone, and this node knows what is to be done with its will."""
        if self._ground.store.shared and not is_nameless(key[1]):
            self._ground.store.write(sql.DROP_WILL, *key)

    def stop(self) -> None:
        """No timer is left; the disk has what was running."""
        for timer, _, _ in self._running.values():
            timer.cancel()
        for key in self._running:
            self._away.drop(key)
        self._running.clear()

    def delay(self, key: Key, device: str, will: Will, seconds: int) -> None:
        """Publish this will after so many seconds, unless it is cancelled."""
        self.publish(key)
        due = int((self._ground.now() + seconds) * 1000)
        row = (*key, device, due, will.topic, will.payload, will.qos, bool(will.retain), will.expiry)
        self._ground.store.write(sql.KEEP_WILL, *row, will.handed_on)
        self._ground.store.committed(lambda _: None)  # now, not lazily
        self._run(key, device, will, seconds)

    def _run(self, key: Key, device: str, will: Will, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self.publish, key)
        self._running[key] = (timer, device, will)
        self._away.add(key, _WILL_BYTES + will.size)
        while (first := self._away.too_much(key[0])) is not None:
            self._away.drop(first)
            self._ground.log.note("wills", "", "session %s:%s ends: wills whose delay runs take too much memory", *first)
            self._ground.background(self.end_session(first))

    def cancel(self, key: Key) -> None:
        """The session has a client again: its will is not published (MQTT5-3.1.3-9)."""
        self._take(key)

    def publish(self, key: Key) -> None:
        """The delay is over, or the session ends: the will, where one is running, is published."""
        running = self._take(key)
        if running is not None:
            self.fire(key, *running)

    def _take(self, key: Key) -> tuple[str, Will] | None:
        running = self._running.pop(key, None)
        if running is None:
            return None
        self._away.drop(key)
        timer, device, will = running
        timer.cancel()
        self._ground.store.write(sql.DROP_WILL, *key)
        return device, will
