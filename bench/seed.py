"""A store full of users and messages, filled through the server itself: connections that only publish, pipelined.

CONNECT, the messages of one user and DISCONNECT leave in one write; the connection ends when every PUBACK is there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.servers import Server
from mqtt_im.load import wire
from mqtt_im.load.bodies import bodies
from mqtt_im.load.broker import DEVICE, PREFIX, Broker
from mqtt_im.load.peer import Peer, PeerError

_CONNECTIONS_AT_ONCE = 64
_MESSAGES_A_CONNECTION = 10


@dataclass(frozen=True)
class Size:
    """How full a store is."""

    users: int = 100_000
    messages: int = 1_000_000


def user_name(number: int) -> str:
    """The name of the user with that number."""
    return f"user{number:06d}"


class _Publisher(Peer):
    def __init__(self, expected: int) -> None:
        super().__init__()
        self.expected = expected
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def turn(self) -> None:
        if self.pubacks >= self.expected and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: PeerError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def publish_all(broker: Broker, sendings: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Each user has sent its messages, `(recipient, text)`, in order; users take turns."""
    turns = [(user, start) for start in range(0, max(map(len, sendings.values())), _MESSAGES_A_CONNECTION) for user in sendings]
    waiting = iter(turns)
    busy: dict[str, asyncio.Lock] = {user: asyncio.Lock() for user in sendings}

    async def work() -> None:
        for user, start in waiting:
            part = sendings[user][start : start + _MESSAGES_A_CONNECTION]
            if part:
                async with busy[user]:
                    await _publish(broker, user, f"{start}-{id(sendings)}", part)

    await asyncio.gather(*(work() for _ in range(_CONNECTIONS_AT_ONCE)))


async def _publish(broker: Broker, user: str, turn: str, messages: Sequence[tuple[str, str]]) -> None:
    """One connection's messages."""
    topic = f"{PREFIX}/{user}/{DEVICE}/up"
    packets = []
    for number, (recipient, text) in enumerate(messages):
        payload = f'{{"op":"send","id":"seed-{turn}-{number}","to":"{recipient}","body":"{text}"}}'.encode()
        packets.append(wire.publish(topic, payload, number + 1))
    publisher = _Publisher(len(messages))
    await publisher.dial(broker, wire.connect(f"{user}:{DEVICE}", user), b"".join(packets))
    await publisher.done
    publisher.leave()
    await publisher.closed


async def fill(server: Server, size: Size, seed: int = 1) -> None:
    """The server has `size.messages` more messages, each user having sent an equal share to others drawn at random."""
    dice = random.Random(seed)
    turns = iter(range(size.messages // _MESSAGES_A_CONNECTION))
    texts = [body.decode() for body in bodies()]

    async def work() -> None:
        for turn in turns:
            user = user_name(turn % size.users)
            messages = [(user_name(dice.randrange(size.users)), dice.choice(texts)) for _ in range(_MESSAGES_A_CONNECTION)]
            await _publish(server, user, str(turn), messages)

    await asyncio.gather(*(work() for _ in range(_CONNECTIONS_AT_ONCE)))
