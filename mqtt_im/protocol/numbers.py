"""JSON whose values can be anything: what is in it is read at the cost of its length, whatever numbers stand there.

msgspec takes 13 µs for a number such as `1e308`, which is near the largest that there is: those of one body held up everybody
for 130 ms. Python's own reading of a number takes a third of one at most.
"""

from __future__ import annotations

from math import isinf
from typing import Final

import msgspec


def number(text: str) -> float:
    """The number that a JSON text with a point or an exponent is. Raises `ValueError` where there is none so large."""
    value = float(text)
    if isinf(value):
        raise ValueError("Number out of range")
    return value


decode: Final = msgspec.json.Decoder(float_hook=number).decode
"""One JSON value. Raises `msgspec.DecodeError`, `UnicodeDecodeError`, `RecursionError`."""
