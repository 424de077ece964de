"""What can go wrong, as one tree: whoever catches `ClientError` has caught everything that the library raises by itself.

Time that runs out while something may still happen is no error of this tree but the built-in `TimeoutError`.
"""

from __future__ import annotations


class ClientError(Exception):
    """Parent of all; its text says what is wrong and what to do about it."""


class Coded(ClientError):
    """A refusal with a `code` for programs (the protocol's, or one of ours that the subclass names)."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class SendFailed(Coded):
    """A change was refused, or given up: `timeout`, `expired` (its `ttl`), `cancelled`, `too_large`, or the server's code."""


class RequestFailed(Coded):
    """The server has refused a question."""


class Offline(ClientError):
    """A question could not be answered in time, since there is no connection."""


class OutboxFull(ClientError):
    """`outbox_limit` changes wait for their answer. Nothing was stored."""


class Refused(ClientError):
    """The server does not take this user, password, client id or device. `connect()` or `network_changed()` tries again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreInUse(ClientError):
    """Another process, or another client of this one, has the store open."""


class StoreUnusable(ClientError):
    """The store is another user's or device's, damaged, of a newer release, or can't be written (disk full)."""
