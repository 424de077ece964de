"""Accepting connections: a few in a turn of the loop, however many have come; those that wait, wait in the kernel.

And what bounds a connection whose other end has gone without a word, whatever it has asked for: TCP's own keep-alive.
"""

from __future__ import annotations

import socket
from typing import Final

AT_ONCE: Final = 16
"""The `backlog` to ask a loop for: asyncio's own accepts so many in one turn, before it does anything else; uvloop one."""
_WAITING: Final = 4096
"""As many as come in a rush."""
_CLOSED: Final = 7
"""The state of a connection that was lost, or reset (`TCP_CLOSE`)."""


SILENT_S: Final = 900
"""Nothing has come for so long: then the kernel asks whether anybody is there. Later than who pings every ten minutes does …"""
ASKED_S: Final = 60
ASKED: Final = 3
"""… and so often, so far apart, before it takes the connection for lost."""


def let_wait(listening: socket.socket) -> None:
    """Of a socket on which the loop accepts by now: many more may wait there than are accepted at once."""
    listening.listen(_WAITING)


def ask_after(listening: socket.socket) -> None:
    """Of those that are accepted on this socket from now on: one whose other end does not answer any more is lost after a while.

    A client may ask for no keep-alive (MQTT-3.1.2-24), and one that has gone would be there for ever: in its place, and online.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SILENT_S), ("TCP_KEEPINTVL", ASKED_S), ("TCP_KEEPCNT", ASKED)):
        if (option := getattr(socket, name, None)) is not None:  # else the system's own
            listening.setsockopt(socket.IPPROTO_TCP, option, value)


def is_lost(connected: socket.socket | None) -> bool:
    """Whether the kernel has taken a connection for lost, where it tells (Linux). A loop that does not read is not told."""
    if connected is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED
    except OSError:  # a socket of another kind
        return False
