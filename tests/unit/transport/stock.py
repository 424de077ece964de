"""amqtt as it comes, beside which our broker is tested."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from tests.unit.transport.harness import Clients

_STOP_S = 3.0


class LetIn(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Everybody by their name, except who has a wrong password."""

    async def authenticate(self, *, session: Session) -> bool | None:
        return bool(session.password != "wrong")


class Stock(Clients):
    """amqtt's `Broker`, as an async context manager; it keeps nothing in its folder."""

    def __init__(self, folder: Path, *, max_connections: int = 0) -> None:
        super().__init__()
        self.folder = folder
        listener = ListenerConfig(bind="127.0.0.1:0", max_connections=max_connections or -1)
        plugin = f"{LetIn.__module__}.{LetIn.__name__}"
        self._config = BrokerConfig(listeners={"default": listener}, plugins={plugin: {}})
        self._broker: Any = None

    def address(self, listener: str) -> tuple[str, int]:
        found: tuple[str, int] = self._broker._servers["default"].instance.sockets[0].getsockname()
        return found

    async def __aenter__(self) -> Self:
        self._broker = Broker(self._config)
        await self._broker.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close_clients()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_S):
                await self._broker.shutdown()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
