"""A server's wall clock, to be set while it runs, and while it does not."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "jumping"


class WallClock:
    """Set by `set`; `environment` is that of a server that follows it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.folder, self.package = str(_FOLDER), str(_FOLDER.parents[2])
        self.environment = {"PYTHONPATH": os.pathsep.join([self.folder, self.package]), "JUMP_FILE": str(file)}
        self.set(0)

    def set(self, ahead_s: float) -> None:
        """From now on it is so many seconds ahead of the machine's; whoever reads it sees the one or the other."""
        new = self._file.with_suffix(".new")
        new.write_text(str(int(ahead_s * 1e9)), "ascii")
        new.replace(self._file)
