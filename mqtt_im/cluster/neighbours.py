"""The other nodes, as one node sees them: this is a node that has none; `bus.Bus` is one among several.

What is told is a hint: it may be lost with a connection, and whoever is told looks at the database. All of it is called on the
event loop, handlers too.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from .questions import Handler, Questions


class Neighbours:
    """None."""

    alone = True
    """There are no others and never will be: whoever asks this first spends nothing."""
    incarnation = 0
    """Of this node."""

    away = False
    """The database has not answered for some seconds."""

    started = False
    """It is known which others there are."""

    dead = False
    """This node was declared dead, and is none again before it has let go of all that it had."""

    def __init__(self, name: str = "") -> None:
        """`name` is this node's, as operators see it; empty: the machine's."""
        self.name = name or socket.gethostname()
        self.others: dict[int, str] = {}
        """The names of the other living nodes, by incarnation."""
        self.on_left: list[Callable[[int], None]] = []
        """Called with the incarnation of a node that is dead or has stopped."""
        self.questions = Questions(self)
        self.on_joined: list[Callable[[int], None]] = []
        """Called with the incarnation of a node that was not there before, or may have missed what it was told."""
        self.on_gap: list[Callable[[], None]] = []
        """Called where this node may have missed something that it was told."""
        self.on_lost: list[Callable[[], Awaitable[None]]] = []
        """Called where this node was declared dead: others have its clients. It is a node again when all of them have returned.

        Until then it can write nothing, so whatever its clients have handed in must have come to its end by then.
        """

    def on(self, kind: str, handler: Handler) -> None:
        """The handler is called with what other nodes tell of this kind."""

    def tell(self, kind: str, *fields: Any, to: int = 0) -> None:
        """Tell all other nodes, or one, with the next batch, which leaves in this turn of the loop."""

    def send(self, kind: str, fields: Sequence[Any], to: Collection[int], done: Callable[[], None] | None, size: int = 0) -> bool:
        """Tell these nodes something of `size` bytes, in order, once each.

        `done` is called when that, and what was told before, is on its way to them, which takes until the database is back where
        it is away. Without it this returns False, and nothing is told, where too much waits already.
        """
        if done is not None:
            done()
        return True

    async def caught_up(self) -> None:
        """What others were told to be on its way before this was called has come."""

    async def start(self) -> None:
        """The others know of this node."""

    def quiet(self) -> None:
        """Handlers are called no more; the others still know of this node, which may commit."""

    async def stop(self) -> None:
        """This node is none of them any more, and can commit nothing; `start` need not have been called."""
