"""Accepting connections: a few in a turn of the loop, however many have come; those that wait, wait in the kernel."""

from __future__ import annotations

import socket
from typing import Final

AT_ONCE: Final = 16
"""The `backlog` to ask a loop for: asyncio's own accepts so many in one turn, before it does anything else; uvloop one."""
_WAITING: Final = 4096
"""As many as come in a rush."""


def let_wait(listening: socket.socket) -> None:
    """Of a socket on which the loop accepts by now: many more may wait there than are accepted at once."""
    listening.listen(_WAITING)
