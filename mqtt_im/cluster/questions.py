"""Questions to other nodes: to one, which says when it has done something, or to all, each of which answers something."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

Handler = Callable[[int, list[Any]], None]
"""Is given the incarnation of the node that tells, and what."""

ANSWER_S: Final = 1.5
"""So long answers of all are waited for."""
DONE_S: Final = 8.0
"""So long one node is waited for."""


@dataclass
class Answers:
    """What other nodes have answered, in their order, and the names of those that have not."""

    told: list[Any] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


class Asked(Protocol):
    """The other nodes."""

    others: dict[int, str]
    on_left: list[Callable[[int], None]]

    def on(self, kind: str, handler: Handler) -> None:
        """See `Neighbours`."""

    def tell(self, kind: str, *fields: Any, to: int = 0) -> None:
        """See `Neighbours`."""


class Questions:
    """Asks, and answers. Lives on the event loop; a node alone asks nobody."""

    def __init__(self, neighbours: Asked) -> None:
        self._neighbours = neighbours
        self._functions: dict[str, Callable[..., Any]] = {}
        self._numbers = itertools.count(1)
        self._open: dict[int, dict[int, asyncio.Future[Any]]] = {}
        """What is awaited, by the question's number and the node's incarnation."""
        neighbours.on("question", self._asked)
        neighbours.on("answer", self._answered)
        neighbours.on("done", self._done)
        neighbours.on_left.append(self._left)

    def answer(self, kind: str, function: Callable[..., Any]) -> None:
        """Questions of this kind to all are answered with what the function returns, as JSON; it is given what was asked."""
        self._functions[kind] = function

    async def ask_all(self, kind: str, *fields: Any) -> Answers:
        """What every other node answers, None left out. A node that dies meanwhile has nothing to answer, and is not named.

        The question reaches a node that only stands still when it goes on, unless it is declared dead.
        """
        others = dict(self._neighbours.others)
        if not others:
            return Answers()
        with self._opened(others) as (number, awaited):
            self._neighbours.tell("question", number, kind, fields)
            await asyncio.wait(awaited.values(), timeout=ANSWER_S)
        told = [future.result() for future in awaited.values() if future.done()]
        silent = sorted(others[node] for node, future in awaited.items() if not future.done())
        return Answers([each for each in told if each is not None], silent)

    async def ask(self, kind: str, to: int, *fields: Any) -> bool:
        """Whether that node has said within some seconds that it is done (`done`), or was declared dead meanwhile.

        It is told the question's number, and what was asked.
        """
        with self._opened([to]) as (number, awaited):
            self._neighbours.tell(kind, number, *fields, to=to)
            await asyncio.wait(awaited.values(), timeout=DONE_S)
        return awaited[to].done()

    def done(self, to: int, number: int) -> None:
        """What that node has asked by this number is done."""
        self._neighbours.tell("done", number, to=to)

    @contextlib.contextmanager
    def _opened(self, nodes: Collection[int]) -> Iterator[tuple[int, dict[int, asyncio.Future[Any]]]]:
        number, loop = next(self._numbers), asyncio.get_running_loop()
        awaited = self._open[number] = {node: loop.create_future() for node in nodes}
        try:
            yield number, awaited
        finally:
            del self._open[number]

    def _asked(self, node: int, fields: list[Any]) -> None:
        number, kind, asked = fields
        function = self._functions.get(kind)
        self._neighbours.tell("answer", number, None if function is None else function(*asked), to=node)

    def _answered(self, node: int, fields: list[Any]) -> None:
        number, told = fields
        self._settle(self._open.get(number, {}).get(node), told)

    def _done(self, node: int, fields: list[Any]) -> None:
        self._answered(node, [fields[0], None])

    def _left(self, node: int) -> None:
        for awaited in self._open.values():
            self._settle(awaited.get(node), None)

    @staticmethod
    def _settle(future: asyncio.Future[Any] | None, told: Any) -> None:
        if future is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(told)
