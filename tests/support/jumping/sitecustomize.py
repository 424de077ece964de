"""The wall clock of a server that runs with this folder in its `PYTHONPATH` can be set: see `tests.support.jumps`.

The machine's other clocks go on as they are, as they do where somebody sets the time. Where asked, its deliveries tell what
they do.
"""

import importlib
import os
import time

_FILE = os.environ.get("JUMP_FILE", "")
_time, _time_ns = time.time, time.time_ns


def _ahead() -> int:
    try:
        with open(_FILE, encoding="ascii") as file:
            return int(file.read() or 0)
    except (OSError, ValueError):
        return 0


time.time = lambda: _time() + _ahead() / 1e9
time.time_ns = lambda: _time_ns() + _ahead()

if _TOLD := os.environ.get("DELIVERIES_FILE", ""):
    importlib.import_module("deliveries").install(_TOLD)
