"""A group whose members are connected, and one who speaks to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from time import perf_counter

from mqtt_im.load import wire
from mqtt_im.load.broker import Broker
from mqtt_im.load.peer import Peer, PeerError
from mqtt_im.load.traffic import Sender, Traffic, join


class Speaker(Sender):
    """Sends to the group; its message has arrived when every member has its copy."""

    def __init__(self, traffic: Traffic, user: str, group: str, broker: Broker, members: int) -> None:
        super().__init__(traffic, user, [group], broker)
        self._members = members
        self._copies: dict[int, int] = {}

    def copy(self, number: int) -> None:
        """One member has got the message of that number."""
        written, _ = self.pending[number - self.arrived]
        if self.traffic.measuring:
            self.traffic.latencies.append(perf_counter() - written)
            self.traffic.delivered += 1
        self._copies[number] = self._copies.get(number, 0) + 1
        while self._copies.get(self.arrived) == self._members:
            del self._copies[self.arrived]
            self.pending.popleft()
            self.arrived += 1
        self.pump()


class Member(Peer):
    """Gets what the speaker says, each message once and in order."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self._speaker = speaker
        self._heard = 0

    def received(self, data: bytes, start: int, stop: int) -> None:
        """A copy, or the message that the group was made, or a receipt."""
        if data.find(b'"body"', start, stop) < 0:
            return
        if data.find(b"-%08d" % self._heard, start, stop) < 0:
            self.fail(PeerError(f"instead of message {self._heard} came {data[start:stop]!r}"))
            return
        self._heard += 1
        self._speaker.copy(self._heard - 1)

    def fail(self, error: PeerError) -> None:
        """The run is over."""
        self._speaker.traffic.fail(error)


class _Creator(Peer):
    answer = b""

    def received(self, data: bytes, start: int, stop: int) -> None:
        if data.find(b'"ok"', start, stop) >= 0 or data.find(b'"error"', start, stop) >= 0:
            self.answer = data[start:stop]


async def make_group(broker: Broker, traffic: Traffic, owner: str, group: str, members: Sequence[str]) -> None:
    """The group is there, with these members. Raises `PeerError` where the server refuses it."""
    creator = _Creator()
    await join(broker, creator, owner, broker.down(owner))
    request = {"op": "group.create", "id": f"create-{group}"[:64], "group": group, "members": list(members)}
    creator.transport.write(wire.publish(broker.up(owner), json.dumps(request).encode(), 1))
    await traffic.until(lambda: bool(creator.answer))
    if b'"ok"' not in creator.answer:
        raise PeerError(f"group.create was answered with {creator.answer.decode()}")
    creator.leave()
    await creator.closed
