"""A client that is let in, and what it has: its name, its session, its will. What its packets do stands above this file."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from mqtt_im.mqtt import encode
from mqtt_im.mqtt.packets import Will
from mqtt_im.transport.api import Lease
from mqtt_im.transport.embedded.answers import Answers
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.limits import Bucket, PerMinute
from mqtt_im.transport.embedded.sessions.session import Key, Session


class Peer(Answers):
    """A socket, and once it is logged in the `Link` of a device."""

    __slots__ = (
        "_up",
        "bucket",
        "clean",
        "device",
        "device_qos",
        "forbidden",
        "key",
        "lease",
        "login",
        "mqtt_session",
        "opened",
        "resumed",
        "session",
        "since",
        "user",
        "user_qos",
        "will",
    )

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self.user = ""
        """Empty for nobody."""
        self.device = ""
        """Empty for a plain client."""
        self.login: asyncio.Task[Any] | None = None
        """The task in which it is being found out who this is; ended with the connection."""
        self.key: Key | None = None
        self.session = ""
        self.mqtt_session: Session | None = None
        self.lease: Lease | None = None
        self.since = 0
        self.clean = True
        self.resumed = False
        self.user_qos = -1
        self.device_qos = -1
        self.will: Will | None = None
        self.opened = False
        """CONNACK has been written."""
        self.bucket: Bucket
        self.forbidden: PerMinute | None = None
        self._up = b""

    def __str__(self) -> str:
        who = f"{self.user or 'nobody'}/{self.device}" if self.device else self.user or "nobody"
        return f"{who} at {self.address}"

    @property
    def protocol(self) -> str:
        """See `Link`."""
        return "mqtt3/ws" if self.listener in ("websocket", "http") else "mqtt3"

    @property
    def own_session(self) -> Session:
        """The session of a client that was let in."""
        assert self.mqtt_session is not None
        return self.mqtt_session

    def attach(self, session: Session, resumed: bool) -> None:
        """The client is let in with this session: write CONNACK. Packets that were held are handled when the task ends."""
        hub = self.hub
        self.mqtt_session, self.session, self.resumed = session, session.id, resumed
        session.connection = self
        if self.device:
            up = hub.topics.up(self.user, self.device).encode()
            self._up = len(up).to_bytes(2, "big") + up
            if session.filters and session.rights is None:
                session.rights = hub.access.rights(session.filters, self.user, self.device)
            if session.rights is not None:
                self.user_qos, self.device_qos = session.rights.user_qos, session.rights.device_qos
        self.answer(encode.connack(encode.ACCEPTED, resumed))
        self.opened = True

    def refuse(self, answer: bytes, reason: str, *, told: bool = False) -> None:
        """Answer CONNECT with a refusal, and end; `told` says that the log has it already."""
        self.hub.count("connects_refused", reason=reason)
        if not told:
            self.hub.log.note(reason, self.address, "a CONNECT from %s is refused: %s", self.address, reason)
        self.answer(answer)
        self.end("refused", linger=True)

    def close(self, reason: str) -> None:
        """Close the connection at once; `reason` is a word for logs and counters."""
        self.end(reason)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Handle a packet in a task; the packets behind it wait for its end."""
        raise NotImplementedError

    def stop(self) -> None:
        """Handle nothing more: the server is stopping."""
        raise NotImplementedError
