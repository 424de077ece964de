"""Questions under way, and whose presence is watched."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from .engine import Engine
from .errors import Offline, RequestFailed

Map = dict[str, Any]


class Asking:
    """Lives as long as a client is open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[str, tuple[Map, asyncio.Future[Map]]] = {}
        self._watching: dict[str, asyncio.Future[bool]] = {}

    async def request(self, op: str, fields: Map, timeout: float) -> Map:
        """The reply's fields. A connection that is lost meanwhile is waited for, and the question asked again."""
        request = {
            "op": op,
            "id": secrets.token_urlsafe(9),
            **{name: value for name, value in fields.items() if value is not None},
        }
        answer: asyncio.Future[Map] = asyncio.get_running_loop().create_future()
        self._open[request["id"]] = request, answer
        try:
            if self._engine.state == "online":
                self._engine.apply(self._engine.session.ask(request))
            async with asyncio.timeout(timeout):
                reply = await answer
        except TimeoutError:
            raise self._offline(op, timeout) from None
        finally:
            self._open.pop(request["id"], None)
        if reply.get("op") == "error":
            raise RequestFailed(str(reply.get("code")), str(reply.get("message", "")))
        return {name: value for name, value in reply.items() if name not in ("op", "id")}

    def online(self) -> None:
        """There is a new connection: ask on it what has no answer yet."""
        for request, answer in list(self._open.values()):
            if not answer.done():
                self._engine.apply(self._engine.session.ask(request))

    def reply(self, request_id: str, data: Map) -> bool:
        """An answer has come; False where nobody asked."""
        question = self._open.get(request_id)
        if question is None:
            return False
        if data.get("op") == "error" and data.get("retry"):
            asyncio.get_running_loop().call_later(data.get("retry_after") or 1.0, self._again, request_id)
        elif not question[1].done():
            question[1].set_result(data)
        return True

    def _again(self, request_id: str) -> None:
        question = self._open.get(request_id)
        if question is not None and self._engine.state == "online":
            self._engine.apply(self._engine.session.ask(question[0]))

    async def watch(self, user: str, timeout: float) -> None:
        """See `Client.watch`."""
        answer = self._watching.get(user)
        if answer is None:
            answer = self._watching[user] = asyncio.get_running_loop().create_future()
            self._engine.apply(self._engine.session.watch(user))
        try:
            async with asyncio.timeout(timeout):
                granted = await asyncio.shield(answer)
        except TimeoutError:
            raise self._offline("watch", timeout) from None
        if not granted:
            raise RequestFailed("forbidden", f"{user} is in no conversation with {self._engine.session.user}")

    def unwatch(self, user: str) -> None:
        """See `Client.unwatch`."""
        self._watching.pop(user, None)
        self._engine.apply(self._engine.session.unwatch(user))

    def watched(self, users: tuple[str, ...], refused: tuple[str, ...]) -> None:
        """The server has granted or refused to tell these users' presence."""
        for user in users:
            answer = self._watching.pop(user, None)
            if answer is not None and not answer.done():
                answer.set_result(user not in refused)

    def close(self, error: Exception) -> None:
        """Nobody gets an answer any more."""
        questions: list[asyncio.Future[Any]] = [answer for _, answer in self._open.values()]
        for answer in (*questions, *self._watching.values()):
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # nobody may wait for it any more
        self._open.clear()
        self._watching.clear()

    def _offline(self, op: str, timeout: float) -> Offline:
        return Offline(f"{op}: no answer within {timeout} s; the client is {self._engine.state}")
