"""Erasing a user: everything that was the user's own is taken back, by the requests that the user could have made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store import queries

from .calls import new_id

if TYPE_CHECKING:
    from .service import Bridge


async def erase(bridge: Bridge, user: str) -> None:
    """The user has left every group, and has no device any more. Raises `Refusal`."""
    groups, devices = await bridge.ledger.call(lambda engine: queries.belongings(engine, user))
    requests: list[rq.Request] = [rq.GroupLeave(id=new_id(), group=name) for name in groups]
    requests += [rq.DeviceForget(id=new_id(), device=name) for name in devices]
    for request in requests:
        try:
            await bridge.calls.make(user, request)
        except Refusal as refusal:
            if refusal.code != "not_member":  # somebody else was quicker
                raise
