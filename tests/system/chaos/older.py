"""An older connection of a device, left open and unread when the next one took over: nothing that it still says may count.

The two are at different nodes as often as not, and the older one's may stand still.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.support import packets, packets5
from tests.support.im import PREFIX, encode

from .wire import Wire
from .world import Profile

_numbers = itertools.count(1)


class Older:
    """What it has received and not acknowledged is `unacknowledged`, packet identifiers; the last `pos` of that `last`."""

    def __init__(self, wire: Wire, profile: Profile, *, five: bool, unacknowledged: Sequence[int], last: int) -> None:
        self.wire = wire
        self._profile = profile
        self._five = five
        self._unacknowledged = unacknowledged
        self._last = last

    def speak(self) -> str:
        """The next connection has its CONNACK, so this one is over: it acknowledges what was thrown away, and sends a message.

        Returns the id of that.
        """
        user = self._profile.user
        if self._profile.app:
            self._publish({"op": "ack", "pos": self._last})
        for packet_id in self._unacknowledged:
            self.wire.send(packets.acknowledge(packets.PUBACK, packet_id))
        late = f"late {next(_numbers)}"
        self._publish({"op": "send", "id": late, "to": user, "body": {"k": late, "v": 0, "pad": ""}})
        return late

    def _publish(self, request: dict[str, object]) -> None:
        publish = packets5.publish if self._five else packets.publish
        topic = f"{PREFIX}/{self._profile.user}/{self._profile.device}/up"
        self.wire.send(publish(topic, encode(request), qos=1, packet_id=60_000 + next(_numbers) % 5_000))
