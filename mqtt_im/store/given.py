"""What a server gives its store, whichever that is: what rules obey, and whom the store asks what it does not know itself."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

from mqtt_im.core.rules import Limits

from .uploads import NoUploads, Uploads


def _true(_: str) -> bool:
    return True


def _false(*_: object) -> bool:
    return False


def _nothing(*_: object) -> None:
    pass


class Given(NamedTuple):
    """What is left out is as where everybody has an account and nobody is connected, so that nothing is taken back or uploaded.

    The ledger's thread asks all of it, the reader's thread `has_account`, `online` and `Uploads.stored`.
    """

    limits: Limits = Limits()
    """The bounds that rules obey."""
    has_account: Callable[[str], bool] = _true
    """Whether messages may go to this name."""
    claim: Callable[[str, int], bool] = _false
    """An item, user and `pos`, is taken back unless a device was offered it (INV-12); whether it was not."""
    unclaim: Callable[[str, int], None] = _nothing
    """It may be offered again: what took it back was not committed."""
    online: Container[str] = frozenset()
    """The users with a connected device."""
    uploads: Uploads = NoUploads()
    """The files that messages may carry."""
