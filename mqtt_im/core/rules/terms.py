"""What rules are told and what they say: who asks, within which limits, and what is decided."""

from __future__ import annotations

from typing import Any

import msgspec

from mqtt_im.core.records import AnyRecord


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The configured bounds that rules obey."""

    group_members: int = 5000
    edit_window_s: int = 86_400
    new_members_see_history: bool = False
    changes_per_message: int = 100
    """Edits, reactions and reports of one message by one user; 0 here and below: no bound."""
    reactions_per_message: int = 1000
    """Users whose reactions one message has at one time."""
    quota_messages: int = 0
    """Messages of one user that are kept."""
    quota_bytes: int = 0
    """Bytes of them."""
    quota_groups: int = 1000
    quota_blocks: int = 10_000
    """Groups that one user is in, and groups that one user has made."""
    quota_devices: int = 100
    """Registered devices of one user."""
    drop_blocked: bool = False
    """Direct messages of a blocked sender are dropped silently; else they are refused."""


class Who(msgspec.Struct, gc=False):
    """Who asks, when, and how the request came.

    `listening`: the device is subscribed to a down topic, so it learns of refusals. `token`: a fresh random word for what
    needs a name. `packet`: `[session, packet id, DUP]` of a QoS 1 PUBLISH, None of others.
    """

    user: str
    device: str
    now: int
    listening: bool = True
    token: str = ""
    packet: tuple[str, int, bool] | None = None
    behind: int = 0
    """By how many ms the steady time is behind `now`; negative where it is ahead."""


class Decision(msgspec.Struct, gc=False):
    """Records to append, in order, and the fields of the reply (`op` among them); None where nothing is answered."""

    records: list[AnyRecord]
    reply: dict[str, Any] | None = None
    n: int = 0
    """The counter that this request uses up; 0 where it has none."""
