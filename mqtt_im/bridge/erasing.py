"""Accounts that are removed: the groups they owned are handed on.

Where a user is to be erased: what the user could have left, forgotten and taken back, then whatever the name still stands for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.jobs.erasing import CONVS, Alone, EraseJob, TakeBackJob, conversations
from mqtt_im.store.queries import belongings

from .calls import new_id
from .seam import Bridge

_POLL_S: Final = 0.05
_TRIES: Final = 100
"""So often it is looked whether what was taken back is gone from all files, in which somebody who reads may stand in the way."""


async def hand_on(bridge: Bridge, user: str) -> None:
    """The account is no more: its user has left the groups that the user owned, which others own now. Raises `Refusal`."""
    groups = await bridge.ledger.call(lambda engine: belongings.owned_groups(engine, user))
    await _make(bridge, user, [rq.GroupLeave(id=new_id(), group=name) for name in groups])


async def erase(bridge: Bridge, user: str) -> None:
    """The user has no group, device or setting any more, and whoever has the name next begins anew. Raises `Refusal`."""
    await bridge.presence.settle(user)
    groups, devices = await bridge.ledger.call(lambda engine: belongings.groups_and_devices(engine, user))
    requests: list[rq.Request] = [rq.GroupLeave(id=new_id(), group=name) for name in groups]
    requests += [rq.DeviceForget(id=new_id(), device=name) for name in devices]
    await _make(bridge, user, requests)
    names, alone = await bridge.ledger.call(lambda engine: conversations(engine, user), user)
    for name, first, last in alone:
        following = first
        while following <= last:
            what = Alone(name, following, last)
            job = await bridge.ledger.ask(partial(TakeBackJob, user, what), bridge.telling.tell)
            following = job.following
    for _ in range(_TRIES if alone else 0):
        if await bridge.ledger.decide(lambda store: store.emptied):
            break
        await asyncio.sleep(_POLL_S)
    await bridge.ledger.ask(partial(EraseJob, user, ()), bridge.telling.tell)
    told: set[str] = set()
    while new := [name for name in names if name not in told]:  # some may be new since, where nobody needs an account
        for start in range(0, len(new), CONVS):
            part: Sequence[str] = new[start : start + CONVS]
            while part:
                part = (await bridge.ledger.ask(partial(EraseJob, user, part), bridge.telling.tell)).left
        told.update(new)
        names, _ = await bridge.ledger.call(lambda engine: conversations(engine, user), user)


async def _make(bridge: Bridge, user: str, requests: Sequence[rq.Request]) -> None:
    for request in requests:
        try:
            await bridge.calls.make(user, request)
        except Refusal as refusal:
            if refusal.code != "not_member":  # somebody else was quicker
                raise
