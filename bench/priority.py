"""Who comes first on a machine that others use too: Linux shares cores among sessions before it looks at their processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path


def level(pids: Iterable[int]) -> None:
    """The sessions of these processes come as early as this one's, as far as this one may decide that.

    A server of PostgreSQL has a session for each of its processes, which all begin at ordinary priority.
    """
    with contextlib.suppress(OSError, ValueError):  # the kernel does not share by sessions
        own = _nice("self")
        for pid in pids:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or we have not the right
                if _nice(pid) != own:
                    _group(pid).write_text(str(own))


def _nice(pid: int | str) -> int:
    return int(_group(pid).read_text().split()[-1])


def _group(pid: int | str) -> Path:
    return Path(f"/proc/{pid}/autogroup")
