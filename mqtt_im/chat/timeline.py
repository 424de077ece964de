"""What is known of one conversation: its messages in order, what waits to be sent, who is typing, who has read how far."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from mqtt_im.chat.text import shown, system
from mqtt_im.client import Edited, Message, Outgoing, Reacted, Recalled, Receipt

TYPING_S: Final = 8.0
"""So long somebody counts as typing who has not said that it is over."""


class Line:
    """A message, as it is now."""

    __slots__ = ("body", "edited", "files", "mine", "reactions", "recalled", "reply_to", "sender", "seq", "system", "ts")

    def __init__(self, message: Message, me: str) -> None:
        self.seq = message.seq
        self.sender = message.sender
        self.mine = message.sender == me and message.system is None
        self.ts = message.ts
        self.body = message.body
        self.system = message.system
        self.edited = message.edited
        self.recalled = message.recalled
        self.reply_to = message.reply_to
        self.reactions: dict[str, list[str]] = message.reactions
        self.files = message.files

    @property
    def text(self) -> str:
        """What it says, fit for a terminal; lines of a body stay lines."""
        if self.system is not None:
            return system(self.system, self.sender)
        return "(recalled)" if self.recalled else shown(self.body, keep="\n")


class Timeline:
    """One conversation."""

    def __init__(self, conv: str, me: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.conv = conv
        self.title = ""
        """A group's name."""
        self.me = me
        self.lines: dict[int, Line] = {}
        self.pending: list[Outgoing] = []
        """What this device has sent, until it is a line, or for good where it failed."""
        self.unread = 0
        self.latest = 0
        """When something happened last, ms since 1970."""
        self.older = True
        """Whether the server has more before the oldest line."""
        self.fetched = False
        self.online: bool | None = None
        """Whether the other one of a direct conversation is; None where that is not known."""
        self.marks: dict[str, tuple[int, int]] = {}
        """User → delivered and read, the highest seqs."""
        self._typing: dict[str, float] = {}
        self._clock = clock

    @property
    def peer(self) -> str | None:
        """The other user of a direct conversation."""
        if self.conv.startswith("#"):
            return None
        first, _, second = self.conv.partition(":")
        return second if first == self.me else first

    @property
    def to(self) -> str:
        """Whom `send` names."""
        return self.peer or self.conv

    @property
    def head(self) -> int:
        """The newest seq that is known."""
        return max(self.lines, default=0)

    def ordered(self) -> list[Line]:
        """The messages, oldest first."""
        return [self.lines[seq] for seq in sorted(self.lines)]

    def add(self, message: Message) -> Line:
        """A message is known, or known better; one that a device of ours sent is pending no more."""
        line = self.lines[message.seq] = Line(message, self.me)
        self.latest = max(self.latest, message.ts)
        self._typing.pop(message.sender, None)
        if line.mine:
            self.pending = [one for one in self.pending if one.seq != message.seq or one.state == "failed"]
        return line

    def settle(self) -> None:
        """What was sent meanwhile is a line."""
        waiting = []
        for outgoing in self.pending:
            if outgoing.seq is None or outgoing.state == "failed":
                waiting.append(outgoing)
                continue
            if outgoing.seq not in self.lines:
                raw = {"conv": self.conv, "seq": outgoing.seq, "from": self.me, "ts": outgoing.ts or 0, "body": outgoing.body}
                fields = outgoing.entry.fields
                self.add(Message(raw | {name: fields[name] for name in ("reply_to",) if name in fields}))
        self.pending = waiting

    def change(self, event: Edited | Recalled | Reacted) -> None:
        """Something became of a message, if it is known."""
        line = self.lines.get(event.seq)
        if line is None:
            return
        match event:
            case Edited():
                line.body, line.edited, line.recalled = event.body, True, event.recalled
            case Recalled():
                line.body, line.recalled, line.files = None, True, []
            case Reacted():
                for users in line.reactions.values():
                    if event.by in users:
                        users.remove(event.by)
                if event.emoji:
                    line.reactions.setdefault(event.emoji, []).append(event.by)
                line.reactions = {emoji: users for emoji, users in line.reactions.items() if users}

    def mark(self, receipt: Receipt) -> None:
        """Somebody has got, or read, more."""
        delivered, read = self.marks.get(receipt.by, (0, 0))
        self.marks[receipt.by] = max(delivered, receipt.delivered or 0, receipt.read or 0), max(read, receipt.read or 0)

    def state_of(self, seq: int) -> str:
        """`sent`, `delivered` or `read` of one's own message; in a group by at least one other."""
        others = [marks for user, marks in self.marks.items() if user != self.me]
        if any(read >= seq for _, read in others):
            return "read"
        return "delivered" if any(delivered >= seq for delivered, _ in others) else "sent"

    def types(self, user: str, on: bool) -> None:
        """Somebody has begun, or ended, typing."""
        if on:
            self._typing[user] = self._clock() + TYPING_S
        else:
            self._typing.pop(user, None)

    @property
    def typing(self) -> list[str]:
        """Who is typing now."""
        now = self._clock()
        return sorted(user for user, until in self._typing.items() if until > now)
