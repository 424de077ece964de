"""One change that waits for the server's answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from mqtt_im.client.payload import Codec, Map, deflated, encode

UNCOUNTED: Final = frozenset({"mute", "settings", "block", "unblock", "device.forget", "read"})
"""Changes that carry no `n` (protocol, "Requests"): sent when nothing else is under way, which keeps their order."""

RAW: Final = {"send": "body", "edit": "body", "report": "result"}
"""The field that is encoded once and for all, since a repeat must carry the same bytes."""

OVERHEAD: Final = 64
"""Bytes of a PUBLISH beside topic and payload, and of what is added to a request when it leaves, at most."""

_WAITED_S: Final = 1.0
"""A message that left later than this tells when it was written."""


@dataclass(slots=True, eq=False)
class Entry:
    """A row of the outbox. What it says on the wire never changes but for `n` and what is left of `ttl`."""

    key: int
    """Its place in the order of the outbox."""
    id: str
    op: str
    fields: Map
    codec: Codec
    raw: bytes | None = None
    n: int | None = None
    """The number it was last sent with, or, before that, would get."""
    tried: bool = False
    """It may have been on the wire."""
    expires: float | None = None
    """When its `ttl` runs out."""
    deadline: float | None = None
    """When the app gives it up."""
    made: float = 0.0
    """When the app made it."""
    made_ms: int = 0
    """The same by the wall clock, milliseconds since 1970: the `cts` of a message that had to wait."""
    not_before: float = 0.0
    refused: int = 0
    """How often it was sent in vain since anything was answered."""
    size: int = 0
    """Bytes of the payload, unpacked."""

    def __post_init__(self) -> None:
        self.size = len(self.payload(self.n, None))

    @property
    def counted(self) -> bool:
        """Whether it carries the device's counter."""
        return self.op not in UNCOUNTED

    @property
    def given_up_at(self) -> float:
        """When it fails by itself, whichever reason comes first."""
        ends = [at for at in (self.expires, self.deadline) if at is not None]
        return min(ends, default=math.inf)

    def payload(self, n: int | None, now: float | None, *, zipped: bool = False) -> bytes:
        """The request as it is sent now; what is left of a `ttl` is rounded up to whole seconds."""
        request: dict[str, Any] = {"op": self.op, "id": self.id}
        if n is not None:
            request["n"] = n
        request.update(self.fields)
        if self.expires is not None and now is not None:
            request["ttl"] = max(1, math.ceil(self.expires - now))
        if self.op == "send" and now is not None and now - self.made > _WAITED_S:
            request.setdefault("cts", self.made_ms)
        if self.raw is not None:
            request[RAW[self.op]] = msgspec.Raw(self.raw)
        payload = encode(request, self.codec)
        return deflated(payload) if zipped else payload
