"""Accounts that are removed: the groups they owned are handed on.

Where a user is to be erased: what the user could have left, forgotten and taken back, then whatever the name still stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store import queries
from mqtt_im.store.erasing import EraseJob

from .calls import new_id
from .seam import Bridge


async def hand_on(bridge: Bridge, user: str) -> None:
    """The account is no more: its user has left the groups that the user owned, which others own now. Raises `Refusal`."""
    groups = await bridge.ledger.call(lambda engine: queries.owned_groups(engine, user))
    await _make(bridge, user, [rq.GroupLeave(id=new_id(), group=name) for name in groups])


async def erase(bridge: Bridge, user: str) -> None:
    """The user has no group, device or setting any more, and whoever has the name next begins anew. Raises `Refusal`."""
    await bridge.presence.settle(user)
    groups, devices = await bridge.ledger.call(lambda engine: queries.belongings(engine, user))
    requests: list[rq.Request] = [rq.GroupLeave(id=new_id(), group=name) for name in groups]
    requests += [rq.DeviceForget(id=new_id(), device=name) for name in devices]
    await _make(bridge, user, requests)
    again = True
    while again:
        job = await bridge.ledger.ask(lambda notify: EraseJob(user, notify), bridge.telling.tell)
        again = job.again


async def _make(bridge: Bridge, user: str, requests: Sequence[rq.Request]) -> None:
    for request in requests:
        try:
            await bridge.calls.make(user, request)
        except Refusal as refusal:
            if refusal.code != "not_member":  # somebody else was quicker
                raise
