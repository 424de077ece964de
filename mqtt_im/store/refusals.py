"""What the store itself refuses, and why."""

from __future__ import annotations

from mqtt_im.protocol.errors import Refusal, Undecided


def unavailable() -> Refusal:
    """The refusal of everything while the store can't commit, or can't be read."""
    return Refusal("unavailable", "the server can't store anything at the moment; try again", retry=True, retry_after=1.0)


def undecided() -> Undecided:
    """The refusal of what may have been committed, or not."""
    return Undecided("unavailable", "the server can't tell whether it has stored this; try again", retry=True, retry_after=1.0)


def fault_refusal() -> Refusal:
    """The refusal of what the server can't do, however often it is asked."""
    return Refusal("unavailable", "the server has a fault with this request; its log tells more")
