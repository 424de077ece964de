"""The seam between transports and the bridge.

A transport speaks in (user, device, payload) and knows MQTT; the bridge knows messaging. Everything here is
called on the event loop's thread. The transport never looks into a payload, the bridge never builds a packet.

Packet identifiers of one connection are shared out, so that neither side needs to ask the other:

- 1 … 32,767: items. The bridge derives them from `pos` (`item_packet_id`), so a redelivery after a restart of the
  server carries the identifier it had before (MQTT-4.4.0-1).
- 32,768 … 49,151: replies and events of the bridge.
- 49,152 … 65,535: plain topics, the transport's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LAST_ITEM_PACKET_ID = 32_767
FIRST_REPLY_PACKET_ID = 32_768
LAST_REPLY_PACKET_ID = 49_151
FIRST_PLAIN_PACKET_ID = 49_152

REFUSED = 0x80
"""SUBACK return code of a subscription that was not granted (MQTT-3.9.3-2)."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a CONNECT said of who is there; `username` and `client_id` are unchecked text."""

    client_id: str
    username: str | None
    password: bytes | None
    address: str
    """The peer's IP address, without port."""
    certificate_user: str | None = None
    """CN of a verified client certificate."""
    protocol: str = "mqtt"
    """What was spoken: `mqtt` or `http`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a connection's right to be there hangs on, where that is not a password: when it ends, so does the connection."""

    token: str = ""
    """The `id` of the token it has shown, which may be revoked; empty for none."""
    expires: int | None = None
    """Milliseconds since 1970; None: never by itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection is, once it has been let in.

    `user` is None for nobody (open mode without a name). `device` is None for a plain MQTT client, which has nothing
    under the prefix.
    """

    user: str | None
    device: str | None
    lease: Lease | None = None


class LoginRefused(Exception):
    """The login failed; `code` is the CONNACK return code: 4 bad user name or password, 5 not authorised, 3 unavailable.

    `busy` says of 3 that coming back in a while helps, which MQTT 5 has a code of its own for.
    """

    def __init__(self, code: int, reason: str, *, busy: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.busy = busy


@dataclass(frozen=True, slots=True)
class Extra:
    """What the properties of an uplink say (MQTT 5)."""

    correlation: bytes | None = None
    """To be handed back with each reply."""
    expiry: int | None = None
    """Message Expiry Interval, in seconds."""
    response_topic: str | None = None
    is_text: bool = False
    """Payload Format Indicator 1: the payload is UTF-8."""


class Link(Protocol):
    """One connection of one device, as the bridge sees it. It lives as long as the socket."""

    user: str
    device: str
    """Empty for a stream that no device reads."""
    address: str
    """The peer's IP address."""
    since: int
    """When it was let in, in ms since 1970."""
    lease: Lease | None
    """What its right to be there hangs on, beside the account."""
    session: str
    """Names the MQTT session: new for every clean session, the same for as long as a kept one lives, over restarts too."""
    version: int
    """`mqtt.V311` or `mqtt.V5`."""
    clean: bool
    """The session ends with the connection; DISCONNECT may change it."""
    resumed: bool
    """A kept session was resumed: CONNACK said session present."""
    user_qos: int
    """Granted QoS of what matches `{prefix}/{user}/down`: 0 or 1; -1 where nothing does."""
    device_qos: int
    """The same of `{prefix}/{user}/{device}/down`."""
    writable: bool
    """False while the write buffer stands above its high-water mark."""
    closed: bool
    room: int
    """How many more packets above QoS 0 the client takes now (Receive Maximum, MQTT5-3.1.2.11.3)."""
    max_packet: int
    """The largest packet that the client takes, in bytes; 0: any."""

    @property
    def protocol(self) -> str:
        """`mqtt3`, `mqtt5`, either with `/ws` where it came over WebSocket, or `sse`."""

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
    ) -> bool:
        """Write one PUBLISH: QoS 1 with `packet_id`, QoS 0 where it is 0. Writes of one loop turn leave together.

        `properties` are encoded ones of MQTT 5. False where the packet is larger than the client takes: it was not written.
        """

    def charge(self, units: float) -> None:
        """The user pays for so many small requests more (or, below 0, less): what comes next waits the longer."""

    def under_way(self, size: int) -> None:
        """So many bytes more (or, below 0, less) of what it has published have no answer yet; of large ones alone."""

    def keep(self, size: int) -> None:
        """So many bytes more (or, below 0, less) are held for it; where that is too much of all, it may be ended."""

    def owes(self) -> float:
        """Seconds until what the user was charged is paid for, so that one more request is let through."""

    def done(self, token: int) -> None:
        """The uplink `token` has its final answer: its PUBACK or PUBREC leaves when those before it have left."""

    def refuse(self, token: int, code: int, text: str) -> None:
        """The uplink `token` was refused, for good or for now: MQTT 5's answer, a reason code of 0x80 or more with a text.

        With 3.1.1, which has no such answer, it is `done`.
        """

    def fail(self, token: int) -> None:
        """The uplink `token` is not acknowledged; the connection is closed once what was written has left.

        Uplinks before it are still answered in their order; none after it is.
        """

    def close(self, reason: str) -> None:
        """Close the connection at once; `reason` is a word for logs and counters."""


class Handler(Protocol):
    """What the bridge offers to a transport."""

    async def login(self, login: Login) -> Identity:
        """Say who this is, or raise `LoginRefused`. Touches no session."""

    async def quiesced(self, user: str, device: str) -> None:
        """Returns when everything that an earlier connection of this device had handed in has its answer."""

    def moved(self, user: str, device: str) -> None:
        """Another server has had the device: nothing that this one knows of what was in flight is so any more."""

    async def released(self, user: str, device: str) -> None:
        """Returns when everything of this device, which another node has from now on, is written; nothing of it is remembered."""

    def attached(self, link: Link) -> None:
        """The CONNACK was written and kept subscriptions stand in `link`; catch-up may be written right behind it."""

    async def register(self, link: Link) -> bool:
        """Returns when the device, which is to have a down topic, is registered: what is committed later is offered to it.

        False where the user has as many devices as there may be (`quota.devices`); the device has been told so. Called before
        the SUBACK, with `user_qos` and `device_qos` as they will be; no item is offered before `subscribe`.
        """

    def subscribe(self, link: Link, topic_filter: str) -> None:
        """A down topic was newly granted: called after its SUBACK was written."""

    def unsubscribed(self, link: Link) -> None:
        """`user_qos` or `device_qos` went down."""

    async def may_watch(self, user: str, other: str) -> bool:
        """Whether `user` may subscribe to the presence of `other`."""

    def watch(self, link: Link, other: str, qos: int, tell: bool = True) -> None:
        """The presence topic of `other` was granted to this link (after SUBACK, and again at each resumption).

        What is, is told at once where `tell` is set; what changes, always.
        """

    def unwatch(self, link: Link, other: str) -> None:
        """The presence topic of `other` is no longer subscribed."""

    def uplink(self, link: Link, payload: bytes, token: int, packet_id: int, dup: bool, extra: Extra | None = None) -> None:
        """One PUBLISH on the device's `up`: exactly one of `done`, `refuse` and `fail` is called for `token` (0, at QoS 0: none).

        `packet_id` (0 at QoS 0) and its DUP flag recognise a repeat that carries no id of its own.
        """

    def rate_limited(
        self, link: Link, payload: bytes, token: int, retry_after: float, dup: bool, extra: Extra | None = None
    ) -> None:
        """An uplink that is far beyond the rate: it is answered with an error and `refuse` or `fail`, and has no effect.

        `dup`: what it repeats may have had one.
        """

    def acked(self, link: Link, packet_ids: Sequence[int]) -> int:
        """PUBACKs, in the order in which they came, of packet identifiers below `FIRST_PLAIN_PACKET_ID`.

        Returns for how many of them something waited; the others are ignored.
        """

    def writable(self, link: Link) -> None:
        """The write buffer has drained below its low-water mark."""

    def detached(self, link: Link) -> None:
        """The connection is gone (closed, taken over, timed out). Called once, after the last `uplink`."""

    def will(self, user: str, device: str, payload: bytes, expiry: int | None = None) -> None:
        """A will on the device's own `up` fires: an uplink request that nobody waits for. `expiry` counts from now (s)."""

    def session_ended(self, user: str, device: str) -> None:
        """The device's MQTT session was discarded or has expired: what was in flight is forgotten with its identifiers."""


class Transport(Protocol):
    """What a transport offers to the bridge and to the composition, beside its links."""

    async def start(self) -> None:
        """Every listener accepts. Raises `OSError` where a port is taken, with the address in its text."""

    async def drain(self, grace_s: float) -> None:
        """Stop accepting and reading, let what was received get its answers, write them, close every connection.

        Returns after `grace_s` seconds at the latest; wills of the connections closed this way fire.
        """

    def links(self, user: str) -> list[Link]:
        """The connections of this user's devices, for closing them when the account goes."""

    def all_links(self) -> list[Link]:
        """Every connection that is logged in as a user, devices or not."""

    def spend(self, user: str) -> float:
        """Let one request of the user through, by the rate that all of the user's connections share, and return 0.

        Or return the seconds after which it may be tried again.
        """

    def flush(self) -> None:
        """What was written to any connection leaves now, and not at the end of this turn of the loop."""

    def charge(self, user: str, units: float) -> None:
        """Have a user pay for what came in without a connection; see `Link.charge`."""

    def owes(self, user: str) -> float:
        """See `Link.owes`."""

    async def forget(self, user: str, device: str) -> None:
        """The device's kept session is gone from disk; its connection is closed."""
