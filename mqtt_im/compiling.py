"""What the compiler of `tools/compiled.txt` is told beside the types. Without it, which is how Python runs this, nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr  # noqa: PLC0414 - that it may be imported from here
else:
    C = TypeVar("C", bound=type)

    def mypyc_attr(**_: bool) -> Callable[[C], C]:
        """As mypy_extensions has it, which is only there where something is compiled."""
        return lambda cls: cls
