"""Questions that all other nodes answer, each from what it has in memory, within a moment; who does not is named."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .neighbours import Neighbours

ANSWER_S: Final = 1.5
"""So long answers are waited for."""


@dataclass
class Answers:
    """What other nodes have answered, in their order, and the names of those that have not."""

    told: list[Any] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


class Questions:
    """Asks, and answers. Lives on the event loop; a node alone asks nobody."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._functions: dict[str, Callable[..., Any]] = {}
        self._numbers = itertools.count(1)
        self._open: dict[int, dict[int, asyncio.Future[Any]]] = {}
        """What is awaited, by the question's number and the node's incarnation."""
        neighbours.on("question", self._asked)
        neighbours.on("answer", self._answered)
        neighbours.on_left.append(self._left)

    def answer(self, kind: str, function: Callable[..., Any]) -> None:
        """Questions of this kind are answered with what the function returns, as JSON; it is given what was asked."""
        self._functions[kind] = function

    async def ask(self, kind: str, *fields: Any) -> Answers:
        """What every other node answers, None left out. A node that dies meanwhile has nothing to answer, and is not named.

        The question reaches a node that only stands still when it goes on, unless it is declared dead.
        """
        others = dict(self._neighbours.others)
        if not others:
            return Answers()
        number, loop = next(self._numbers), asyncio.get_running_loop()
        awaited = self._open[number] = {node: loop.create_future() for node in others}
        self._neighbours.tell("question", number, kind, fields)
        try:
            await asyncio.wait(awaited.values(), timeout=ANSWER_S)
        finally:
            del self._open[number]
        told = [future.result() for future in awaited.values() if future.done()]
        silent = sorted(others[node] for node, future in awaited.items() if not future.done())
        return Answers([each for each in told if each is not None], silent)

    def _asked(self, node: int, fields: list[Any]) -> None:
        number, kind, asked = fields
        function = self._functions.get(kind)
        self._neighbours.tell("answer", number, None if function is None else function(*asked), to=node)

    def _answered(self, node: int, fields: list[Any]) -> None:
        number, told = fields
        self._settle(self._open.get(number, {}).get(node), told)

    def _left(self, node: int) -> None:
        for awaited in self._open.values():
            self._settle(awaited.get(node), None)

    @staticmethod
    def _settle(future: asyncio.Future[Any] | None, told: Any) -> None:
        if future is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(told)
