"""What devices say: requests that are drawn, most of which make sense."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.support.im import Map

from .device import DONE, Device, Request

USERS: Final = ("ann", "bob", "cat", "dan", "eve")
GROUPS: Final = ("#few", "#all")
MOST: Final = 12
"""Requests that a device has on its way at a time."""


class Saying:
    """All that was said."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """Whatever changes what others see, in the order in which it was said."""
        self._named = 0

    def found(self, device: Device) -> None:
        """The device makes the groups."""
        for group, members in zip(GROUPS, (USERS[:3], USERS), strict=True):
            self._say(device, {"op": "group.create", "id": self._name(), "group": group, "members": list(members)})

    def something(self, device: Device, random: Random) -> None:
        """The device says one thing."""
        (kind,) = random.choices(("send", "ack", "hello", "change", "group", "look"), (8, 6, 3, 4, 2, 2))
        match kind:
            case "send":
                self._say(device, self._send(random))
            case "change":
                self._say(device, self._change(device, random))
            case "group":
                self._say(device, self._group(random))
            case "ack":
                device.say_ack(random)
            case "hello":
                device.say_hello(random)
            case _:
                device.look(self._look(device, random))

    def to_one(self, devices: list[Device], random: Random) -> None:
        """They all write to one at once."""
        to = random.choice((*USERS, *GROUPS))
        for device in devices:
            self._say(device, {**self._send(random), "to": to})

    def _say(self, device: Device, fields: Map) -> None:
        if len(device.outbox) < MOST:
            request = Request(device.user, device.name, fields)
            self.requests.append(request)
            device.ask(request)

    def _name(self) -> str:
        self._named += 1
        return f"i{self._named}"

    def _send(self, random: Random) -> Map:
        fields: Map = {"op": "send", "to": random.choice((*USERS, *USERS, *GROUPS)), "body": f"<{self._name()}>"}
        if random.random() < 0.85:
            fields["id"] = fields["body"][1:-1]
        if random.random() < 0.2:
            fields["key"] = random.choice("kl")
        if random.random() < 0.1:
            fields["ttl"] = random.choice((1, 5))
        if random.random() < 0.1:
            fields["body"] += "x" * 300
        return fields

    def _conv(self, user: str, random: Random) -> str:
        other = random.choice((*USERS, *GROUPS))
        return other if other[0] == "#" else ":".join(sorted((user, other)))

    def _change(self, device: Device, random: Random) -> Map:
        fields: Map = {"conv": self._conv(device.user, random), "seq": random.randint(1, 12), "id": self._name()}
        own = [each for each in self.requests if each.by == device.user and each.fields["op"] == "send" and each.state == DONE]
        op = random.choice(("edit", "recall", "react", "report", "read", "read", "mute", "block", "unblock"))
        if own and op in ("edit", "recall"):
            to = random.choice(own[-5:]).fields["to"]
            fields["conv"] = to if to[0] == "#" else ":".join(sorted((device.user, to)))
        match op:
            case "edit":
                return {"op": op, **fields, "body": f"<{self._name()}>"}
            case "react":
                return {"op": op, **fields, "emoji": random.choice(("+", "-", ""))}
            case "report":
                return {"op": op, **fields, "state": random.choice(("executed", "failed"))}
            case "mute":
                return {"op": op, "id": fields["id"], "conv": fields["conv"], "until": random.choice((0, 1 << 50))}
            case "block" | "unblock":
                return {"op": op, "id": fields["id"], "user": random.choice(USERS)}
        return {"op": op, **fields}

    def _group(self, random: Random) -> Map:
        fields: Map = {"id": self._name(), "group": random.choice(GROUPS)}
        op = random.choice(("group.add", "group.add", "group.remove", "group.rename", "group.leave", "group.role"))
        if op in ("group.add", "group.remove"):
            fields["members"] = random.sample(USERS, random.choice((1, 1, 3)))
        elif op == "group.rename":
            fields["name"] = self._name()
        elif op == "group.role":
            fields["user"], fields["role"] = random.choice(USERS), random.choice(("owner", "admin", "member"))
        return {"op": op, **fields}

    def _look(self, device: Device, random: Random) -> Map:
        return random.choice(
            (
                {"op": "sync", "after": max(0, device.have - random.randint(0, 5)), "limit": random.choice((2, 100))},
                {"op": "history", "conv": self._conv(device.user, random)},
                {"op": "convs"},
                {"op": "devices"},
            )
        )
