"""The four topics that are ours (PROTOCOL §2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics under one prefix, which has no slash at its end."""

    prefix: str

    def up(self, user: str, device: str) -> str:
        """Where a device publishes its requests."""
        return f"{self.prefix}/{user}/{device}/up"

    def user_down(self, user: str) -> str:
        """Where all of a user's devices get items and events."""
        return f"{self.prefix}/{user}/down"

    def device_down(self, user: str, device: str) -> str:
        """Where one device gets replies."""
        return f"{self.prefix}/{user}/{device}/down"

    def presence(self, user: str) -> str:
        """Where a user's presence is retained."""
        return f"{self.prefix}/{user}/presence"

    def presence_of(self, topic: str) -> str | None:
        """The user whose presence topic this is; None where it is none."""
        rest = topic[len(self.prefix) + 1 :] if self.owns(topic) else ""
        user, _, last = rest.partition("/")
        return user if last == "presence" and "+" not in user and user != "#" else None

    def owns(self, topic: str) -> bool:
        """Whether a topic or filter begins with the prefix, and so is ours alone."""
        return topic.startswith(self.prefix) and (len(topic) == len(self.prefix) or topic[len(self.prefix)] == "/")
