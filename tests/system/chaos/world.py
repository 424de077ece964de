"""What the devices of one run share, and what they write down for the checker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.support.im import Map
from tests.support.jumps import WallClock

from .trail import TOLD, Trail

COUNTED_OPS = frozenset({"send", "report", "edit", "recall", "react", "group.add", "group.remove", "group.rename"})
"""What takes an `n`."""
HELLOS = 0.01
MEANT = (
    "edit", "recall", "react", "report", "read", "block", "unblock", "refused as blocked", "group.add", "group.remove",
    "connections of MQTT 3.1.1", "connections of MQTT 5", "sessions resumed", "take-overs", "clock set forward", "clock set back",
    "hello with after, back", "hello with after, forward", "hello with after, no answer", "PUBACKs while that was under way",
    "PUBACKs that came late",
)  # fmt: skip
"""What a run of a minute has all of; requests by their op, where they were done."""
SILENT_OPS = frozenset({"ack", "read", "typing"})
"""What has no answer, so that its PUBACK is all there is to wait for."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How one device behaves, for the whole run."""

    user: str
    device: str
    clean: bool
    app: bool = False
    codec: str = "json"
    batch: bool = False
    zipped: bool = False
    window: int = 20
    qos: int = 1
    forgets: bool = False
    """Forgets a request at its PUBACK; otherwise repeats it until it is answered."""
    without_ids: bool = False
    """Sends without `id`, in a kept session: its repeats are recognised by DUP, packet identifier and payload."""
    counts: bool = False
    """Gives an `n` to what it does."""

    @property
    def name(self) -> str:
        return f"{self.user}:{self.device}"

    @property
    def bears_refusals(self) -> bool:
        """A request that is refused leaves no gap in its counter, and it learns of the refusal."""
        return not (self.counts or self.forgets or self.without_ids)


@dataclass(slots=True)
class Request:
    """One uplink request, from the moment it was made."""

    key: str
    """Unique in the run: `{user}.{device}.{number}`."""
    op: str
    fields: Map
    acknowledged: bool = False
    """Its PUBACK or its answer was seen: it may not be lost any more."""
    done: bool = False
    deferred: bool = False
    """It was, or may have been, refused for now: what was published behind it may have been committed before it."""
    may_be_deferred: bool = False
    """It was last sent to a server that refuses for now, and that goes on then with what is behind it (MQTT 5)."""
    refused: bool = False
    """Answered with an error that this request may get."""
    answer: Map | None = None
    packet_id: int = 0
    session: int = -1
    """The MQTT session in which it was last sent; -1: never."""
    connection: int = -1
    """The connection on which it was last sent."""


class Content(NamedTuple):
    """An item as far as it is compared; fields that an op does not have are empty."""

    op: str
    conv: str = ""
    seq: int = 0
    by: str = ""
    id: str = ""
    ts: int = 0
    key: str = ""
    """Of the body: the key of the request that sent it; of others what tells them apart (emoji, state, event)."""
    version: int = 0
    """Of the body: 0 as sent, 1, 2, … after edits; -1 recalled."""


@dataclass(slots=True)
class Stream:
    """What one device has of its user's inbox."""

    start: int = 0
    """Its cursor when it was registered."""
    kept: int = 0
    """It has processed, and told so, everything up to this `pos`."""
    seen: dict[int, list[Content]] = field(default_factory=dict)
    """Everything that ever came at a `pos`, also what was not kept; more than one where the message has changed."""
    received: int = 0
    repeated: int = 0


@dataclass(slots=True)
class World:
    """One run."""

    seed: int
    ports: list[int]
    """Of each server."""
    proxy_ports: list[int] = field(default_factory=list)
    """By which each of them is reached through a bad network."""
    quiet: bool = False
    """No new requests."""
    calm: bool = False
    """No device breaks its connection of its own accord, and none goes through the proxy."""
    hellos: float = HELLOS
    """How likely a device says where it stands when it could acknowledge something."""
    refuses: bool = False
    """The servers are alive while their database is not, and so refuse for now."""
    epoch: str = ""
    wall: WallClock | None = None
    """The server's clock, which is set now and then."""
    faults: list[str] = field(default_factory=list)
    """What was seen to be wrong while it happened."""
    requests: dict[str, list[Request]] = field(default_factory=dict)
    """By device name, in the order in which they were made."""
    streams: dict[str, Stream] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """What has happened, and how often."""
    connections: int = 0
    dice: Random = field(default_factory=Random)
    deliveries: list[Path] = field(default_factory=list)
    """Where each server writes down what its deliveries do."""
    trails: dict[str, str] = field(default_factory=dict)
    """What led to the first fault of each of the first devices that had one."""

    def fault(self, who: str, what: str, trail: Trail | None = None) -> None:
        """Note a broken promise; the first hundred are enough."""
        if len(self.faults) < 100:
            self.faults.append(f"{who}: {what}")
        if trail is not None:
            self.explain(who, what, trail)

    def explain(self, who: str, what: str, trail: Trail) -> None:
        """Keep what led to the first fault of a device."""
        if len(self.trails) < TOLD and who not in self.trails:
            trail.note(0, f"FAULT: {what}")
            self.trails[who] = trail.text(who, what, self.deliveries)


def happened(world: World) -> dict[str, int]:
    """What the devices have done and met, and how often; what never was is there with 0."""
    counts = dict.fromkeys(MEANT, 0) | dict(world.counts)
    for requests in world.requests.values():
        for request in requests:
            if request.op in counts and request.acknowledged and not request.refused:
                counts[request.op] += 1
    return counts


def content_of(item: Map) -> Content:
    """The comparable part of an item."""
    op = item["op"]
    if op == "void":
        return Content("void", key=item["why"])
    by = item["from"] if op == "msg" else item.get("by", "")
    key, version = "", 0
    if op == "reacted":
        key = item["emoji"]
    elif op == "report":
        key = f"{item['state']} {item.get('result')}"
    elif item.get("recalled"):
        version = -1
    elif "system" in item:
        system = item["system"]
        key = " ".join([system["event"], *system.get("members", []), system.get("user", ""), system.get("name", "")])
    elif "body" in item:
        key, version = body_key(item["body"])
    return Content(op, item["conv"], item["seq"], by, item.get("id", ""), item["ts"], key, version)


def body_key(body: Any) -> tuple[str, int]:
    """Key and version of a body of the workload; anything else is named as foreign."""
    if isinstance(body, dict) and set(body) == {"k", "v", "pad"}:
        return str(body["k"]), int(body["v"])
    return f"foreign body {body!r}"[:80], 0
