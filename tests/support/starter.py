"""A process that starts on a store and is killed amid that: `python -m tests.support.starter DIR MOMENT COUNT`.

It ends by SIGKILL where the moment comes for the `COUNT`th time, in the start or in what is written after it; else in good order.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from mqtt_im.store.sqlite import flusher, replay
from mqtt_im.store.sqlite.opening import opener
from mqtt_im.store.sqlite.state.projected import ProjectedState
from mqtt_im.store.sqlite.tables.projection import Projection

FLUSH_ROWS: Final = 20
MOMENTS: Final[dict[str, tuple[type, str]]] = {
    "takes": (ProjectedState, "replay"),
    "freezes": (ProjectedState, "freeze"),
    "writes": (Projection, "write"),
    "commits": (Projection, "commit"),
}


def start(data_dir: Path, moment: str, count: int) -> None:
    """The store was started, and what was in memory after that written."""
    owner, name = MOMENTS[moment]
    original = getattr(owner, name)
    left = count

    def watched(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    with patch.object(owner, name, watched):
        engine = opener(data_dir)()
        while engine.flusher.writing or engine.flusher.full():
            engine.side_work(0)
        engine.close()


if __name__ == "__main__":
    flusher.FLUSH_ROWS, flusher.SLICE_ROWS, replay.LOOK = FLUSH_ROWS, 5, 1  # type: ignore[misc]
    start(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
