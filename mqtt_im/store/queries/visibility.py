"""Who may know of whom: that somebody types, is connected, or was seen."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from mqtt_im.core.model import Conv, User
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import conv_of
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.names import direct, members_of_direct

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable, Seen

FEW = 64
"""So many users are looked up one by one; for more, all conversations of a user are gone through …"""
_AS_MANY: Final = 8
"""… unless the groups among them have so many times as many members …"""
_SOME, _MANY, _FOR_EACH = 500, 4_000, 4
"""… or they are more than these, than so many for each who is looked up, but for a few; those once left count too."""
AT_ONCE = 32
"""Users that are looked up one by one in one step."""


def typing_audience(engine: Readable, who: Who, to: str) -> tuple[str, list[str]]:
    """The conversation, and the connected users who are to learn that `who` types in it. Raises `Refusal`."""
    state = engine.state
    if to[0] == "#":
        conv, _ = conv_of(state, who, to)
        return conv.name, [name for name in engine.connected(conv) if name != who.user and not hidden(state, who.user, name)]
    if not state.has_account(to):
        raise Refusal("not_found", f"to: there is no user {to}")
    conv_name = direct(who.user, to)
    return conv_name, [] if hidden(state, who.user, to) or to == who.user or to not in engine.online else [to]


def hidden(state: Seen, user: str, other: str) -> bool:
    """Whether one of two users has blocked the other, so that they do not see each other typing."""
    return user in state.user(other).blocks or other in state.user(user).blocks


def shares_conversation(engine: Readable, user: str, other: str) -> bool:
    """Whether two users are in one conversation now."""
    state = engine.state
    return user == other or _share_direct(state, user, other) or state.share_group(user, other)


def _share_direct(state: Seen, user: str, other: str) -> bool:
    """Whether both have something in their direct conversation: whose name was erased and taken anew has not."""
    conv = state.conv(direct(user, other))
    if conv is None:
        return False
    parts = conv.part(user), conv.part(other)
    return all(part is not None and part.newest(conv.head) for part in parts)


def sees_presence(engine: Readable, watcher: str, user: str) -> bool:
    """Whether `watcher` may know whether `user` is connected."""
    if watcher == user:
        return True
    subject = engine.state.user(user)
    return subject.presence and watcher not in subject.blocks and shares_conversation(engine, watcher, user)


def seen_by(engine: Readable, user: str, among: Collection[str], *, rest: bool = False) -> tuple[list[str], list[str]]:
    """Those `among` who may know whether the user is connected, as far as one step goes; who has still to be asked about.

    `rest`: they are whom a former step has left.
    """
    subject = engine.state.user(user)
    if not subject.presence:
        return [], []
    found, left = _near(engine, user, among, rest)
    return sorted(found - subject.blocks), left


def nearby_online(engine: Readable, watcher: str, online: Collection[str], *, rest: bool = False) -> tuple[list[str], list[str]]:
    """Those `online` who share a conversation with the watcher and let it know, and who has still to be asked about, as above."""
    state = engine.state
    found, left = _near(engine, watcher, online, rest)
    return [name for name in sorted(found) if (user := state.user(name)).presence and watcher not in user.blocks], left


def _near(engine: Readable, user: str, among: Collection[str], rest: bool) -> tuple[set[str], list[str]]:
    """Those `among`, the user aside, who share a conversation with the user now; those whom this step did not come to.

    Whether to go through the conversations is decided once: that alone takes as long as many are looked up in.
    """
    state = engine.state
    owner = state.user(user)
    if not rest and len(among) > FEW:
        most = min(_MANY, max(_SOME, len(among) * _FOR_EACH))
        if not state.has_more_conversations(owner, most) and (found := _through_conversations(engine, owner, among)) is not None:
            return found, []
    names = list(among)
    some = {name for name in names[:AT_ONCE] if name != user and shares_conversation(engine, user, name)}
    return some, names[AT_ONCE:]


def _through_conversations(engine: Readable, owner: User, among: Collection[str]) -> set[str] | None:
    """Those `among` who are in a conversation of the user; None where its groups have far more members than are asked for."""
    state, user = engine.state, owner.name
    found: set[str] = set()
    groups: list[Conv] = []
    for conv_name in state.conv_names(owner):
        pair = members_of_direct(conv_name)
        if pair is not None:
            found.update(name for name in pair if name in among and name != user and _share_direct(state, user, name))
        elif (conv := state.conv(conv_name)) is not None and conv.member(user) is not None:
            groups.append(conv)
    if sum(conv.size for conv in groups) > len(among) * _AS_MANY:
        return None
    for conv in groups:
        names = conv.members if len(conv.members) < len(among) else list(among)
        found.update(name for name in names if name in among and conv.member(name) is not None)
    found.discard(user)
    return found
