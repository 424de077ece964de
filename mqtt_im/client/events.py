"""What happens beside messages, as `Client.events()` yields it. Fields are the protocol's; its `from` is `sender` here.

Those with a `pos` are items of the inbox: each comes once, in order. The others tell what is so at this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Map = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edited:
    """A message has a new body; or none, where it was recalled meanwhile."""

    pos: int
    conv: str
    seq: int
    by: str
    body: Any
    ts: int
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class Recalled:
    """A message was taken back."""

    pos: int
    conv: str
    seq: int
    by: str
    ts: int


@dataclass(frozen=True, slots=True)
class Reacted:
    """Somebody's reaction to a message; `emoji` is empty where it was taken away."""

    pos: int
    conv: str
    seq: int
    by: str
    emoji: str
    ts: int


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a message that this user sent, usually a command: `executed` or `failed`."""

    pos: int
    conv: str
    seq: int
    by: str
    state: str
    result: Any
    ts: int


@dataclass(frozen=True, slots=True)
class Void:
    """The items `first` … `pos` hold nothing any more; `why` is `expired`, `replaced`, `retention` or `too_large`."""

    pos: int
    first: int
    why: str

    @property
    def sender(self) -> int:
        """The protocol's `from`, which here is a position: `first`."""
        return self.first


@dataclass(frozen=True, slots=True)
class Receipt:
    """The highest seqs of a conversation that somebody was delivered, or has read; None where it does not say."""

    conv: str
    by: str
    delivered: int | None = None
    read: int | None = None


@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody has begun or stopped typing."""

    conv: str
    sender: str
    on: bool


@dataclass(frozen=True, slots=True)
class Presence:
    """A watched user is `online`, or `offline` since `last_seen` (milliseconds since 1970)."""

    user: str
    state: str
    last_seen: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Items that will not come: `first` … `last`, of which the server has nothing (`why` is `retention` or `missing`).

    With `why` `epoch`, and both 0: the server was restored from a backup, and what came since that was made is unknown.
    """

    first: int
    last: int
    why: str


Event = Edited | Recalled | Reacted | Reported | Void | Receipt | Typing | Presence | Lost


def event_of(data: Map) -> Event | None:
    """The event in a map from the server; None where it is none, or makes no sense."""
    try:
        return _event_of(data)
    except KeyError:
        return None


def _event_of(data: Map) -> Event | None:
    match data["op"]:
        case "edited":
            at = data["pos"], data["conv"], data["seq"], data["by"]
            return Edited(*at, data.get("body"), data.get("ts", 0), bool(data.get("recalled")))
        case "recalled":
            return Recalled(data["pos"], data["conv"], data["seq"], data["by"], data.get("ts", 0))
        case "reacted":
            return Reacted(data["pos"], data["conv"], data["seq"], data["by"], data["emoji"], data.get("ts", 0))
        case "report":
            at = data["pos"], data["conv"], data["seq"], data["by"]
            return Reported(*at, data["state"], data.get("result"), data.get("ts", 0))
        case "void":
            return Void(data["pos"], int(data.get("from") or data["pos"]), str(data.get("why", "")))
        case "receipt":
            return Receipt(data["conv"], data["by"], data.get("delivered"), data.get("read"))
        case "typing":
            return Typing(data["conv"], data["from"], bool(data["on"]))
        case "presence":
            return Presence(data["user"], data["state"], data.get("last_seen"))
        case "lost":
            return Lost(data["first"], data["last"], data["why"])
    return None
