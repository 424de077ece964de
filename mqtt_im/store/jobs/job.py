"""What every job is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from mqtt_im.compiling import mypyc_attr
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.commits import Commit, Receipt
from mqtt_im.store.wanted import Asked, Wanted

if TYPE_CHECKING:
    from mqtt_im.store.interface import Engine


@mypyc_attr(allow_interpreted_subclasses=True)
class Job:
    """The parent of all jobs."""

    __slots__ = ("brought", "commits", "receipts", "refusal", "seconds")

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.commits: list[Commit] | None = None
        self.receipts: list[Receipt] | None = None
        self.seconds = 0.0
        """Of its thread's time, so far."""
        self.brought = 0.0
        """What was done for it so far that it has to wait for; see `interface.Later`."""

    def refuse(self, refusal: Refusal) -> None:
        """It is refused.

        Without the traceback, whose frames hold the job and what its connection published before: a chain without an end.
        """
        self.refusal = refusal.with_traceback(None)

    reads: ClassVar[bool] = False
    """Whether it only reads, and so is done by the reader's thread."""

    exact: ClassVar[bool] = False
    """Of one that reads: whether nothing that is told before it may have changed the users it has looked at."""

    @property
    def lazy(self) -> bool:
        """Whether nobody waits for it; see `threads.behind`."""
        return False

    @property
    def passes(self) -> bool:
        """Whether it may be done before lazy jobs that were handed in before it."""
        return False

    @property
    def patient(self) -> bool:
        """Of one that changes something: whether it needs a commit for sure, and so is refused while nothing can be committed."""
        return True

    def line(self) -> str:
        """The user in whose turn it is done; `""` for the server itself, which comes first."""
        return ""

    def recipients(self, members_of: Callable[[str], int]) -> int:
        """About how many it makes an item for, where those are many; `members_of` tells how many a group has."""
        return 0

    def asks(self) -> Asked | None:
        """What `prepare` will look up; None where nothing."""
        return None

    def wants(self, wanted: Wanted) -> None:
        """Say what `prepare` will ask for, for a store that is shared."""

    def prepare(self, engine: Engine) -> None:
        """Append records. Raises `Refusal` before it has appended any."""

    def finish(self, engine: Engine) -> None:
        """Everything appended is on disk; read what is to be told. Raises `Refusal`."""

    def done(self) -> None:
        """On the event loop: it is over."""
