"""Who is there: the channels by user, and to whom what is committed is to be told."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator

from .channel import Channel

Channels = dict[str, list[Channel]]


class Audience(Container[str]):
    """The users to whom what is committed is to be told: with a device that has its delivery, or with one who watches.

    The ledger's thread looks names up in it.
    """

    def __init__(self) -> None:
        self.online: Channels = {}
        """The channels of devices that are subscribed, by user."""
        self.watching: Channels = {}
        """The channels that no device reads, by user."""
        self.elsewhere: dict[str, set[int]] = {}
        """Users who are online at other nodes, with the incarnations of these; empty where there are none."""

    def __contains__(self, user: object) -> bool:
        return user in self.online or user in self.watching

    def has(self, user: str, device: str) -> bool:
        """Whether the device is subscribed here."""
        return any(channel.device == device for channel in self.online.get(user, ()))

    def reachable(self, user: str) -> bool:
        """Whether a device of the user has its delivery here."""
        return any(channel.delivery is not None for channel in self.online.get(user, ()))


class Present(Collection[str]):
    """The users with a device that has its delivery, at whichever node. For any thread."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def __contains__(self, user: object) -> bool:
        return user in self._audience.online or user in self._audience.elsewhere

    def __iter__(self) -> Iterator[str]:
        here = [user for user, channels in list(self._audience.online.items()) if any(each.delivery for each in list(channels))]
        return iter(dict.fromkeys([*here, *list(self._audience.elsewhere)]))

    def __len__(self) -> int:
        return sum(1 for _ in self)
