"""While the store can't commit: what only reads goes on, and devices come and are served from what is on disk.

That a device begins its delivery must be in the log before anything of it is replaced (INV-12). Nothing is replaced while nothing
can be committed, so the record is owed: it comes first in the next batch.
"""

from __future__ import annotations

from typing import Any, cast

from mqtt_im.core.records import AnyRecord, DeviceChange

from .commits import Author
from .interface import Engine
from .jobs import Job
from .reader import unavailable
from .wanted import Wanted


class Owed(Job):
    """Records of devices that have come meanwhile, for the next batch that is committed."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[tuple[str, str], DeviceChange] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    def add(self, record: DeviceChange) -> None:
        """The device has come; only the first time counts."""
        self._records.setdefault((record.user, record.device), record)

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        users = [user for user, _ in self._records]
        wanted.actors.update(users)
        wanted.devices.update(users)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        self.commits = self.refusal = None
        for (user, name), record in self._records.items():
            registered = engine.state.device(user, name) is not None
            if registered or record.created:
                change = DeviceChange(engine.now, user, name, exposed=record.exposed, behind=engine.behind)
                if not registered:
                    change.created, change.cursor = True, record.cursor
                engine.append(self, change)

    def finish(self, engine: Engine) -> None:
        """See `Job`."""
        self._records.clear()


class ReadOnly:
    """Implements `interface.Engine` over another one, of which it changes nothing."""

    def __init__(self, engine: Engine, owed: Owed) -> None:
        self._engine = engine
        self._owed = owed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `Engine`; raises `unavailable`."""
        raise unavailable()

    def append_soon(self, author: Author, record: DeviceChange) -> None:
        """See `Engine`; raises `unavailable` where another server may have the device by the time this one can commit."""
        if not self._engine.alone:
            raise unavailable()
        self._owed.add(record)


def read_only(engine: Engine, owed: Owed) -> Engine:
    """The store as it is for jobs while it can't commit."""
    return cast(Engine, ReadOnly(engine, owed))
