"""What a bench starts ends with it, also where the bench is killed: nobody is attacked by a process that nobody waits for."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

_LOOK_S: Final = 1.0


def end_with_parent() -> None:
    """This process ends within a second or two of the one that started it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
