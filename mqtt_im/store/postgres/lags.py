"""How far registered devices are behind their inboxes, and what has still to come to these, looked at now and then.

A few devices at a time, between what others read, and with pauses. All nodes show the same figures, each by looks of its own: a
figure to watch, not one to decide by.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.ledger import Ledger

from .wire import Statement

EVERY_S: Final = 15.0
PIECE: Final = 500
SHARE: Final = 50
"""Looking takes at most this part of the time."""
_LAGS: Final = Statement(
    "SELECT d.uid, d.device, u.head - d.cursor + coalesce((SELECT sum(g.acts - m.pulled)::int8"
    " FROM member m JOIN grp g USING (cid) WHERE m.uid = d.uid AND m.active AND g.large), 0)"
    " FROM device d JOIN im_user u USING (uid)"
    " WHERE (d.uid, d.device) > ($1, $2) ORDER BY d.uid, d.device LIMIT $3",
    "iti",
)


class Lags:
    """The figures, as of the last whole look."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.behind = 0
        """Devices that have not acknowledged all of their inbox."""
        self.worst = 0
        """Items that the one furthest behind lacks."""

    async def run(self) -> None:
        """Never returns; to be cancelled."""
        while True:
            found = await self._look()
            if found is not None:
                self.behind, self.worst = found
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> tuple[int, int] | None:
        """Both figures; None where the database can't be asked."""
        behind = worst = uid = 0
        device = ""
        while True:
            began = time.monotonic()
            after = uid, device
            try:
                rows: list[Any] = await self._ledger.call(lambda engine: engine.state.link.one(_LAGS, *after, PIECE))  # type: ignore[attr-defined]  # noqa: B023
            except Refusal:
                return None
            behind += sum(lag > 0 for _, _, lag in rows)
            worst = max((worst, *(lag for _, _, lag in rows)))
            if len(rows) < PIECE:
                return behind, worst
            uid, device, _ = rows[-1]
            await asyncio.sleep(SHARE * (time.monotonic() - began))
