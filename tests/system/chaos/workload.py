"""Who takes part, and what a device does next. Every request made here is one that the server must accept."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from tests.support.im import Map, direct

from .world import Content, Profile, Request

USERS = [f"user{number}" for number in range(7)]
EVERYBODY, SOME, ROTATING = "#everybody", "#some", "#rotating"
GROUPS = {EVERYBODY: USERS, SOME: USERS[:4], ROTATING: USERS[:2]}
"""Groups and their permanent members; the first one owns the group."""
FLOATERS = USERS[2:4]
"""Members of the rotating group now and then; they never send to it."""

LONG_TTL_S = 36_000
BLOCKER, BLOCKED = USERS[6], USERS[5]
"""The first blocks the second now and then, whose direct messages are refused then."""


def profiles(dice: Random) -> list[Profile]:
    """One to three devices for each user. The first of a user is registered first; every kind of device occurs in every run."""
    kinds: list[Map] = [
        {"clean": False},
        {"clean": True, "qos": 2},
        {"clean": False, "app": True},
        {"clean": True, "forgets": True, "counts": True},
        {"clean": False, "without_ids": True},
        {"clean": True, "batch": True, "codec": "msgpack", "zipped": True, "window": 5},
        {"clean": False, "counts": True, "codec": "msgpack"},
        {"clean": True, "app": True, "batch": True},
        {"clean": False, "forgets": True, "window": 3},
        {"clean": False, "batch": True},
    ]
    dice.shuffle(kinds)
    made: list[Profile] = []
    for index, user in enumerate(USERS):
        for number in range(1 + index % 3):
            made.append(Profile(user=user, device=f"d{number}", **kinds[len(made) % len(kinds)]))
    return made


class Workload:
    """What one device does, drawn from its own dice."""

    def __init__(self, profile: Profile, seed: str, mean_pause_s: float) -> None:
        self.profile = profile
        self._dice = Random(seed)
        self._mean_pause_s = mean_pause_s
        self._groups = [group for group, members in GROUPS.items() if profile.user in members]
        self._own: deque[Map] = deque(maxlen=30)
        """Own messages that can be amended, with the version that they have."""
        self._learned: deque[Content] = deque(maxlen=50)
        self._leads = profile.user == USERS[0] and profile.device == "d0"
        self._blocks = profile.user == BLOCKER and profile.device == "d0"
        """That the other can't tell whether it is blocked is part of the plan."""
        self._inside: set[str] = set()
        self._changing: Request | None = None

    def pause(self) -> float:
        """Seconds until the next request."""
        return min(1.0, self._dice.expovariate(1 / self._mean_pause_s))

    def learned(self, content: Content) -> None:
        """An item of the device's stream that others' requests can be about."""
        passing = content.conv == ROTATING and self.profile.user in FLOATERS
        if content.op == "msg" and content.version == 0 and "." in content.key and not passing:
            self._learned.append(content)

    def made(self, request: Request) -> None:
        """A request of this device stands in line."""
        if request.op.startswith("group."):
            self._changing = request

    def answered(self, request: Request) -> None:
        """The first answer to a request of this device."""
        answer, fields = request.answer, request.fields
        if request.op == "send" and answer is not None and not {"key", "ttl"} & set(fields):
            self._own.append({"conv": answer["conv"], "seq": answer["seq"], "key": request.key, "version": 0})

    def next(self) -> tuple[str, Map] | None:
        """The next request, or None where there is nothing for what the dice have chosen."""
        if self._blocks and self._dice.random() < 0.1:
            return self._dice.choice(("block", "unblock")), {"user": BLOCKED}
        choice = self._dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        made: tuple[str, Map] | None = getattr(self, f"_{choice}")()
        return made

    def _send(self) -> tuple[str, Map]:
        dice, user = self._dice, self.profile.user
        fields: Map = {"to": user}
        if dice.random() < 0.4 and self._groups:
            fields["to"] = dice.choice(self._groups)
        elif dice.random() < 0.95:
            fields["to"] = dice.choice([other for other in USERS if other != user])
        if fields["to"] == BLOCKER and user == BLOCKED and not self.profile.bears_refusals:
            fields["to"] = user
        if dice.random() < 0.04:
            fields["key"] = f"key{dice.randrange(2)}"
        elif dice.random() < 0.05:
            fields["ttl"] = dice.choice((1, LONG_TTL_S))
        if dice.random() < 0.1:
            fields["cts"] = dice.randrange(10**12)
        return "send", fields

    def _edit(self) -> tuple[str, Map] | None:
        if not self._own:
            return None
        message = self._dice.choice(self._own)
        message["version"] += 1
        body = {"k": message["key"], "v": message["version"], "pad": "y" * self._dice.randrange(100)}
        return "edit", {"conv": message["conv"], "seq": message["seq"], "body": body}

    def _recall(self) -> tuple[str, Map] | None:
        if not self._own:
            return None
        message = self._dice.choice(self._own)
        self._own.remove(message)
        return "recall", {"conv": message["conv"], "seq": message["seq"]}

    def _react(self) -> tuple[str, Map] | None:
        # Somebody may have recalled the message meanwhile; a refusal would leave a gap in the device's own counter.
        if not self._learned or self.profile.counts:
            return None
        content = self._dice.choice(self._learned)
        return "react", {"conv": content.conv, "seq": content.seq, "emoji": self._dice.choice("👍🎉🙂")}

    def _report(self) -> tuple[str, Map] | None:
        found = [each for each in self._learned if ":" in each.conv and each.by != self.profile.user]
        if not found or self.profile.counts:
            return None
        content = self._dice.choice(found)
        return "report", {"conv": content.conv, "seq": content.seq, "state": "executed", "result": self._dice.randrange(100)}

    def _read(self) -> tuple[str, Map] | None:
        if not self._learned:
            return None
        content = self._dice.choice(self._learned)
        return "read", {"conv": content.conv, "seq": content.seq}

    def _typing(self) -> tuple[str, Map]:
        return "typing", {"to": self._dice.choice(USERS), "on": True}

    def _group(self) -> tuple[str, Map] | None:
        """The leading device changes the rotating group, one change after the other."""
        if not self._leads or (self._changing is not None and not self._changing.done):
            return None
        fields: Map = {"group": ROTATING}
        if self._dice.random() < 0.3:
            return "group.rename", {**fields, "name": f"name {self._dice.randrange(1000)}"}
        floater = self._dice.choice(FLOATERS)
        self._inside ^= {floater}
        return "group.add" if floater in self._inside else "group.remove", {**fields, "members": [floater]}


_WEIGHTS = {
    "send": 70, "edit": 7, "recall": 2, "react": 4, "report": 3, "read": 4, "typing": 3, "group": 7,
}  # fmt: skip


def conversation(user: str, to: str) -> str:
    """The conversation to which a message goes."""
    return to if to.startswith("#") else direct(user, to)


def may_be_blocked(user: str, request: Request) -> bool:
    """Whether the request is about the conversation of one who is blocked now and then with the one who does that."""
    return user == BLOCKED and direct(BLOCKER, BLOCKED) in (
        request.fields.get("conv"),
        conversation(BLOCKED, request.fields.get("to", "")),
    )


def setup_requests() -> list[tuple[str, Map]]:
    """The groups, made by the first user before the noise begins."""
    made: list[tuple[str, Any]] = []
    for group, members in GROUPS.items():
        made.append(("group.create", {"group": group, "name": group[1:], "members": members[1:], "id": f"create {group}"}))
    return made
