"""The one tree of exceptions.

`MqttImError` is a failure with a code for programs and a sentence that tells a person what to mend. Below it stand the
peer's faults (`Refusal`, which becomes an `error` packet), the operator's (`ConfigError`) and the machine's (`StoreError`).
"""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "bad_payload",
    "unknown_op",
    "bad_field",
    "too_large",
    "quota",
    "not_found",
    "not_member",
    "forbidden",
    "blocked",
    "conflict",
    "out_of_order",
    "rate_limited",
    "unavailable",
]
"""The codes of an `error` packet (PROTOCOL §3)."""


class MqttImError(Exception):
    """Something failed; `code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Refusal(MqttImError):
    """A request that is refused for good, or, where `retry` is set, for now. It has left no trace."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        retry: bool = False,
        retry_after: float | None = None,
        expected: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.retry = retry
        self.retry_after = retry_after
        self.expected = expected


class Quota(Refusal):
    """More than one user may keep; `what` names the bound."""

    def __init__(
        self,
        what: Literal["messages", "bytes", "groups", "members", "devices", "blocks", "changes", "reactions", "carriers"],
        message: str,
    ) -> None:
        super().__init__("quota", message)
        self.what = what


class Undecided(Refusal):
    """A request of which nobody knows whether it was done: to be answered like no answer at all, so that its repeat is known."""


class StoreError(MqttImError):
    """The store can't be read or written; nothing of the attempt was kept."""

    def __init__(self, message: str, code: str = "store") -> None:
        super().__init__(code, message)


class InDoubt(StoreError):
    """Whether the attempt was kept is not known."""


class ConfigError(MqttImError):
    """The configuration is wrong; `mistakes` holds one line for each mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("config", "\n".join(mistakes))
        self.mistakes = mistakes
