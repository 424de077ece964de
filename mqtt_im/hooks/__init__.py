"""Webhooks: pushes for users who are away, and events for bots and other programs (docs/webhooks.md).

Everything here follows the log from behind, on a thread of its own, and meets messaging only by short questions to the ledger:
a receiver that is slow, broken or gone costs a message nothing.

    log → desks      what concerns the receiver, after `push.delay_s` for pushes
        → outbox     in one transaction with the position in the log (`outbox`)
        → desks      what is due, and is still to be told, as a payload
        → sender     a few threads that POST it, signed; and back with the outcome

`webpush` does the same for the push services of browsers, with an outbox of its own.
"""

from __future__ import annotations

from .service import Hooks
from .webpush import WebPush

__all__ = ["Hooks", "WebPush"]
