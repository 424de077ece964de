"""Guests: connections that come in without CONNECT, and take their place among the others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mqtt_im.transport.api import Identity
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key
from mqtt_im.transport.guest import Guest

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.sessions.claiming import Claims


async def join(hub: Hub, guest: Guest) -> str:
    """Let a guest in as a connection of its user, which takes over from the one of its device.

    Returns why it can't be let in, as a word, or an empty text; then `leave` is due at its end.
    """
    if not await hub.pay_login(guest.user):
        return "logins"
    key = hub.key(Identity(guest.user, guest.device or None), "")
    async with hub.turn(key):
        if guest.closed:
            return "lost"
        if hub.draining:
            return "stopping"
        if (old := hub.live.get(key)) is not None:
            old.end("taken_over")
        if full := hub.has_no_room(key):
            return full
        guest.key = key
        hub.enter(guest)
        if guest.device:
            await hub.handler.quiesced(guest.user, guest.device)
            if hub.claims is not None and (problem := await _claim(hub.claims, key, guest)):
                return problem
        if gone(guest):
            return "lost"
        hub.live[key] = guest
    return ""


async def _claim(claims: Claims, key: Key, guest: Guest) -> str:
    """The device is this node's, or a word that says why not."""
    try:
        claim = await claims.claim(key, clean=False, gone=partial(gone, guest))
    except StoreFailed:
        return "unavailable"
    finally:
        claims.settle(key)
    return "taken_over" if claim.lost else ""


def gone(guest: Guest) -> bool:
    """Whether it has ended, which every `await` gives it time for."""
    return guest.closed


def leave(hub: Hub, guest: Guest) -> None:
    """A guest has ended: take it out of the shared state, where it is there."""
    key = guest.key
    if key is None:
        return
    hub.leave(guest)
    guest.key = None
    if hub.live.get(key) is guest:
        del hub.live[key]
