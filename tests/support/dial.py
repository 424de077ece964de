"""Connecting by asyncio, for tasks that may be cancelled in the middle of it."""

from __future__ import annotations

import asyncio
import socket

from mqtt_im.testing import HOST


async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connected to the port of this machine. Raises `OSError`; whatever ends it, no socket is left open.

    `asyncio.open_connection` leaves the one behind that was connected in the turn of the loop in which its task is cancelled.
    """
    made = socket.socket()
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (HOST, port))
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise
