"""Jobs that only read. They are done by the reader's thread, after what their user had handed in before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.entries import Entry

from .job import Job

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable


@mypyc_attr(allow_interpreted_subclasses=True)
class ReadJob(Job):
    """The parent of all jobs that only read: `finish` sees what is committed, the user's own jobs before it included."""

    __slots__ = ()

    reads: ClassVar[bool] = True

    def finish(self, engine: Readable) -> None:
        """Read, and change nothing; it may be called again, where what it saw has changed before it was told."""


class FetchJob(ReadJob):
    """Items of an inbox after `after`: at most `limit`, and of `max_bytes` together, but one at least."""

    __slots__ = ("after", "entries", "head", "limit", "max_bytes", "notify", "user")

    def __init__(self, user: str, after: int, limit: int, max_bytes: int, notify: Callable[[FetchJob], None]) -> None:
        super().__init__()
        self.user = user
        self.after = after
        self.limit = limit
        self.max_bytes = max_bytes
        self.notify = notify
        self.entries: list[tuple[int, Entry]] = []
        self.head = 0

    def line(self) -> str:
        """See `Job`."""
        return self.user

    def finish(self, engine: Readable) -> None:
        """See `Job`."""
        owner = engine.state.user(self.user)
        self.head = owner.head
        self.entries = engine.entries(owner, self.after, self.limit, self.max_bytes)

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


class CallJob(ReadJob):
    """Anything else that only reads, for `user`, or for the server itself."""

    __slots__ = ("call", "notify", "result", "user")

    exact: ClassVar[bool] = True

    def __init__(self, call: Callable[[Readable], Any], notify: Callable[[CallJob], None], user: str = "") -> None:
        super().__init__()
        self.user = user
        self.call = call
        self.notify = notify
        self.result: Any = None

    def line(self) -> str:
        """See `Job`."""
        return self.user

    def finish(self, engine: Readable) -> None:
        """See `Job`."""
        self.result = self.call(engine)

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)
