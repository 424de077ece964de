"""What one user has: devices, and how far they are; an inbox, groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqtt_im.core.rules import Who

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable


def devices(engine: Readable, who: Who) -> list[dict[str, Any]]:
    """The user's devices, without who of them is connected."""
    return [
        {"device": device.device, "pos": device.cursor, "last_seen": device.seen + engine.ahead}
        for device in sorted(engine.state.devices(who.user).values(), key=lambda device: device.device)
    ]


def last_seen(engine: Readable, user: str) -> int:
    """When the last of a user's devices was seen, in ms since 1970; 0 for a user without devices."""
    seen = max((device.seen for device in engine.state.devices(user).values()), default=0)
    return seen + engine.ahead if seen else 0


def lags(engine: Readable, user: str) -> list[dict[str, Any]]:
    """The user's registered devices by name, with how far each is behind the inbox, and what has still to come to that."""
    owner = engine.state.user(user)
    head = owner.head + engine.state.waiting(owner)
    return [
        {
            "device": device.device,
            "pos": device.cursor,
            "head": head,
            "lag": head - device.cursor,
            "last_seen": device.seen + engine.ahead,
        }
        for device in sorted(engine.state.devices(user).values(), key=lambda device: device.device)
    ]


def has_inbox(engine: Readable, user: str) -> bool:
    """Whether the user has left, or was left, anything: items, a device, a setting."""
    owner = engine.state.user(user)
    return bool(owner.head > owner.begin or owner.registered or owner.blocks or owner.mutes)


def owned_groups(engine: Readable, user: str) -> list[str]:
    """The groups that the user is an owner of."""
    state = engine.state
    named = [state.conv(name) for name in state.conv_names(state.user(user)) if name[0] == "#"]
    members = [(conv.name, conv.member(user)) for conv in named if conv is not None]
    return sorted(name for name, member in members if member is not None and member.role == "owner")


def groups_and_devices(engine: Readable, user: str) -> tuple[list[str], list[str]]:
    """The groups that the user is in, and the user's registered devices."""
    state = engine.state
    named = [state.conv(name) for name in state.conv_names(state.user(user)) if name[0] == "#"]
    groups = sorted(conv.name for conv in named if conv is not None and conv.member(user) is not None)
    return groups, sorted(state.devices(user))
