"""Questions to other nodes: who answers, who has nothing to, who is gone, and who is named as silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mqtt_im.cluster import Neighbours, questions
from mqtt_im.cluster.questions import Handler
from tests.unit.transport.harness import on_loop


class Scripted(Neighbours):
    """Three others, played by the test; what is told to them is kept."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        super().__init__("n1")
        self.others = {2: "n2", 3: "n3", 4: "n4"}
        self.told: list[tuple[Any, ...]] = []

    def on(self, kind: str, handler: Handler) -> None:
        self.handlers[kind] = handler

    def tell(self, kind: str, *fields: Any, to: int = 0) -> None:
        self.told.append((kind, to, *fields))


@on_loop
async def test_answers_are_gathered_and_who_is_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_S", 0.05)
    others = Scripted()
    asking = asyncio.create_task(others.questions.ask_all("weather", "today"))
    await asyncio.sleep(0)
    ((kind, to, number, asked, fields),) = others.told
    assert (kind, to, asked, fields) == ("question", 0, "weather", ("today",))
    others.handlers["answer"](2, [number, ["rain"]])
    others.handlers["answer"](2, [number, ["twice"]])
    others.handlers["answer"](9, [number, ["nobody asked"]])
    for left in others.on_left:
        left(3)
    answers = await asking
    assert (answers.told, answers.silent) == ([["rain"]], ["n4"])
    others.handlers["answer"](4, [number, ["too late"]])


@on_loop
async def test_what_nobody_can_answer_is_answered_with_nothing() -> None:
    others = Scripted()
    asked = others.questions
    asked.answer("sum", lambda one, other: one + other)
    others.handlers["question"](3, [7, "sum", [1, 2]])
    others.handlers["question"](3, [8, "unheard of", []])
    assert others.told == [("answer", 3, 7, 3), ("answer", 3, 8, None)]


@on_loop
async def test_a_node_alone_asks_nobody() -> None:
    answers = await Neighbours().questions.ask_all("anything")
    assert (answers.told, answers.silent) == ([], [])
