"""What the session wants done: values, carried out by whoever drives it, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .entries import Entry


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a PUBLISH; its PUBACK comes back under `token`."""

    token: int
    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Send a SUBSCRIBE at QoS 1; its SUBACK comes back under `token`."""

    token: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Send the PUBACK of a packet that came."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Write down that these were tried, then say so (`Session.marked`)."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Save:
    """Write the inbox's marks down, then say so (`Session.saved`), and with `then_ack` acknowledge."""

    then_ack: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A change was done: take it from the disk, tell the app."""

    entry: Entry
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """A change was refused or given up: take it from the disk, tell the app."""

    entry: Entry
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a question, `op` `error` among them; or to nothing that is known."""

    request_id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Send an UNSUBSCRIBE."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """Whether the server tells the presence of these users was answered; it does not for those in `refused`."""

    users: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event without `pos`, or None: the readers may have something to read."""

    event: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Positions were skipped or forgotten: the marks are to be written."""


@dataclass(frozen=True, slots=True)
class Online:
    """`welcome` has come."""

    welcome: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The server does not serve this device: stop trying."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """End the connection and try again, not before `after` seconds."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The server has sent what makes no sense; it was ignored."""

    what: str


Effect = (
    Publish | Subscribe | Acknowledge | Mark | Save | Answered | Failed | Reply | Watched | Happened | Lost | Online | Refuse
    | Drop | Unreadable | Unsubscribe
)  # fmt: skip
