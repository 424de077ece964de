"""The core at work without a server: users ask, and what became of it can be seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mqtt_im.bridge.claims import Claims
from mqtt_im.core.records import AnyRecord, encode
from mqtt_im.core.rules import Decision, Limits, Who
from mqtt_im.protocol.codec import decode_request, encode_json
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.given import Given
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.memory.engine import MemoryEngine
from mqtt_im.store.uploads import NoUploads, Uploads

GHOST = "ghost"
"""A name that is no account."""


class World:
    """The store's twin in memory, asked as devices ask; keywords are the limits that rules obey."""

    def __init__(self, uploads: Uploads | None = None, **limits: Any) -> None:
        self.claims = Claims()
        self.engine = MemoryEngine(
            Given(Limits(**limits), lambda name: name != GHOST, self.claims.take_back, uploads=uploads or NoUploads())
        )
        self.state = self.engine.state
        self.now = 1_000_000

    def ask(
        self,
        by: str,
        op: str,
        device: str = "tel",
        /,
        *,
        listening: bool = True,
        packet: tuple[str, int, bool] | None = None,
        **fields: Any,
    ) -> Decision:
        """What was decided, and done. Raises `Refusal`."""
        request = decode_request(encode_json({"op": op, **fields}), 10_000, 10_000)
        job = RequestJob(Who(by, device, 0, listening, "made", packet), request, lambda _: None)
        self.engine.run([job], self.now)
        if job.refusal is not None:
            raise job.refusal
        assert job.decision is not None
        return job.decision

    def reply(self, by: str, op: str, /, *device: str, **fields: Any) -> dict[str, Any]:
        """The fields of the answer."""
        reply = self.ask(by, op, *device, **fields).reply
        assert reply is not None
        return reply

    def refused(self, by: str, op: str, /, *device: str, **fields: Any) -> str:
        """The code with which it was refused; nothing has changed."""
        log = self.log()
        with pytest.raises(Refusal) as refusal:
            self.ask(by, op, *device, **fields)
        assert self.log() == log
        return refusal.value.code

    def log(self) -> list[bytes]:
        """The records, encoded."""
        return [encode(record) for record in self.state.log.values()]

    def newest(self) -> AnyRecord:
        """The record that was appended last."""
        return self.state.log[self.engine.last]

    def inbox(self, user: str, device: str = "pc", after: int = 0) -> list[dict[str, Any]]:
        """The items of a user as a device sees them."""
        entries = self.engine.entries(self.state.user(user), after, 10_000, 1 << 30)
        return [json.loads(entry.item(pos, user, device, self.now)) for pos, entry in entries]

    def heads(self, *users: str) -> tuple[int, ...]:
        """The newest `pos` of each."""
        return tuple(self.state.user(user).head for user in users)

    def group(self, *members: str, name: str = "#g", **fields: Any) -> str:
        """A group of which the first is the owner."""
        self.ask(members[0], "group.create", id=f"make {name}", group=name, members=list(members[1:]), **fields)
        return name

    def roles(self, group: str = "#g") -> dict[str, str]:
        """The present members and their roles."""
        conv = self.state.conv(group)
        assert conv is not None
        return {name: member.role for name, member in conv.members.items() if member.active}
