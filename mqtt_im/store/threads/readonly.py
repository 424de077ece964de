"""While the store can't commit: what only reads goes on, and registered devices come, say where they stand, and are served.

What a device is, and how far it has read, must be in the log before anything of it is replaced (INV-12). Nothing is replaced
while nothing can be committed, so it is owed: it comes first in the next batch. A crash before that only means that items come
again: what would mean more is refused. So is a device that is not registered, which would begin anew after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from mqtt_im.core.model import Device
from mqtt_im.core.records import AnyRecord, Cursors, DeviceChange
from mqtt_im.core.rules.own import grown
from mqtt_im.store.commits import Author
from mqtt_im.store.interface import Engine, State
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.refusals import unavailable
from mqtt_im.store.wanted import Wanted


class Owed(Job):
    """Registered devices as they are to be, for the next batch that is committed."""

    def __init__(self) -> None:
        super().__init__()
        self._devices: dict[tuple[str, str], Device] = {}

    def __bool__(self) -> bool:
        return bool(self._devices)

    def device(self, user: str, name: str) -> Device | None:
        """The device as it is to be; None where that is as it is."""
        return self._devices.get((user, name))

    def add(self, state: State, record: DeviceChange | Cursors) -> None:
        """The device is to be as the record says."""
        if isinstance(record, Cursors):
            for user, name, pos, _ in record.moves:
                device = self._changed(state, user, name)
                device.cursor = max(device.cursor, pos)
            return
        device = self._changed(state, record.user, record.device)
        device.cursor = device.cursor if record.cursor is None else record.cursor
        device.app = device.app if record.app is None else record.app
        device.n = device.n if record.n is None else record.n
        device.exposed = device.exposed if record.exposed is None else record.exposed

    def _changed(self, state: State, user: str, name: str) -> Device:
        """The device, to be changed."""
        found = self._devices.get((user, name))
        if found is None:
            known = state.device(user, name)
            assert known is not None, "nothing is owed of a device that is not registered"
            found = self._devices[user, name] = known.copied()
        return found

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        users = [user for user, _ in self._devices]
        wanted.actors.update(users)
        wanted.devices.update(users)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        self.commits = self.refusal = None
        state = engine.state
        for (user, name), device in self._devices.items():
            known = state.device(user, name)
            if known is None:
                continue  # it was forgotten, by a commit that only seemed to fail
            change = DeviceChange(engine.now, user, name, behind=engine.behind)
            if device.cursor != known.cursor:
                change.cursor = device.cursor
            if device.cursor > known.cursor:
                change.delivered = grown(state, user, state.delivered(user, known.cursor, device.cursor))
            change.app = device.app if device.app != known.app else None
            change.n = device.n if device.n != known.n else None
            change.exposed = device.exposed if device.exposed != known.exposed else None
            engine.append(self, change)

    def finish(self, engine: Engine) -> None:
        """See `Job`."""
        self._devices.clear()


class _Seen:
    """Implements `interface.State` over another one, of which it changes nothing: devices are as they are to be."""

    def __init__(self, state: State, owed: Owed) -> None:
        self._state = state
        self._owed = owed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def device(self, user: str, device: str) -> Device | None:
        """See `View`."""
        return self._owed.device(user, device) or self._state.device(user, device)


class ReadOnly:
    """Implements `interface.Engine` over another one, of which it changes nothing."""

    def __init__(self, engine: Engine, owed: Owed) -> None:
        self._engine = engine
        self._owed = owed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def state(self) -> State:
        """See `Engine`."""
        return cast(State, _Seen(self._engine.state, self._owed))

    def pull_all(self, user: str) -> None:
        """See `Engine`; what is not there comes later."""

    def pulled(self, users: Iterable[str]) -> tuple[dict[str, list[tuple[int, int]]], list[str]]:
        """See `Engine`."""
        return {}, []

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `Engine`; raises `unavailable`."""
        raise unavailable()

    def append_soon(self, author: Author, record: DeviceChange | Cursors) -> None:
        """See `Engine`; raises `unavailable` where another server may have the device by the time this one can commit.

        And where a crash before that would take something from the device.
        """
        if not self._engine.alone or self._would_lose(record):
            raise unavailable()
        self._owed.add(self._engine.state, record)

    def _would_lose(self, record: DeviceChange | Cursors) -> bool:
        """Whether the device is to be registered, or wants items again that count as delivered, or that PUBACKs count no more."""
        if isinstance(record, Cursors):
            return False
        known = self._engine.state.device(record.user, record.device)
        if known is None:
            return True
        return (record.cursor is not None and record.cursor < known.cursor) or (bool(record.app) and not known.app)


def read_only(engine: Engine, owed: Owed) -> Engine:
    """The store as it is for jobs while it can't commit."""
    return cast(Engine, ReadOnly(engine, owed))
