"""The end of a large bulk write, on a thread: SQLite writes thousands of pages then, and messages would wait for all of them.

Meanwhile whoever looks into the projections sees them as they were before it, on another connection: what is not there yet is in
memory until the end was seen.
"""

from __future__ import annotations

import threading

from .tables.projection import Projection


class Committing:
    """One commit, which has begun. Nothing else may use the connection of the bulk write before its `end`."""

    def __init__(self, projection: Projection, epoch: str, lsn: int) -> None:
        self._projection = projection
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(epoch, lsn), name="commit", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether `end` returns at once."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """It is over. Raises what it has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, epoch: str, lsn: int) -> None:
        try:
            self._projection.commit(epoch, lsn)
        except Exception as error:  # noqa: BLE001 - raised where its end is seen
            self._error = error
