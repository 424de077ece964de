"""Rules: a request and the state in, a decision out. Nothing here changes anything.

`decide` is the one entrance. What it returns is written to the log and then applied (`core.apply`); what it refuses has
left no trace, so its `id` is free and its `n` is still the next one (PROTOCOL §3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mqtt_im.core.records import DeviceChange
from mqtt_im.core.view import View
from mqtt_im.protocol import requests as rq

from . import amending, groups, own, sending
from .common import next_n, repeat
from .terms import Decision, Limits, Who

__all__ = ["CHANGING", "Decision", "Limits", "Who", "decide"]

_RULES: dict[type[rq.Request], Callable[[View, Limits, Who, Any], Decision]] = {
    rq.Send: sending.send,
    rq.Read: own.read,
    rq.Ack: own.ack,
    rq.Hello: own.hello,
    rq.Mute: own.mute,
    rq.Settings: own.settings,
    rq.Block: own.block,
    rq.Unblock: own.unblock,
    rq.DeviceForget: own.forget,
}
"""What changes nothing but the user's own state, and `send`, which may come without an `id`."""

_ACTS: dict[type[rq.Counted], Callable[[View, Limits, Who, Any, int], Decision]] = {
    rq.Report: sending.report,
    rq.Edit: amending.edit,
    rq.Recall: amending.recall,
    rq.React: amending.react,
    rq.GroupCreate: groups.create,
    rq.GroupAdd: groups.add,
    rq.GroupRemove: groups.remove,
    rq.GroupRole: groups.role,
    rq.GroupRename: groups.rename,
    rq.GroupLeave: groups.leave,
}
"""Are given the counter that they use up; repeats never get to them."""

CHANGING: frozenset[type[rq.Request]] = frozenset((*_RULES, *_ACTS))
"""The requests that may change something; the others only read."""


def decide(view: View, limits: Limits, who: Who, request: rq.Request) -> Decision:
    """What this request of this device does now. Raises `Refusal`, and has changed nothing either way."""
    rule = _RULES.get(type(request))
    if rule is not None:
        decision = rule(view, limits, who, request)
    else:
        assert isinstance(request, rq.Counted)
        again = repeat(view, who, request)
        decision = again or _ACTS[type(request)](view, limits, who, request, next_n(view, who, request.n))
    if decision.n and not decision.records:
        decision.records.append(DeviceChange(who.now, who.user, who.device, n=decision.n, behind=who.behind))
    return decision
