"""Message bodies: no two of a thousand alike, made of words, so that compression has about the work that text gives it."""

from __future__ import annotations

import random

BODY_BYTES = 200
_COUNT = 1_000
_WORDS = 4_000
_LETTERS = "eeeeeeeetttttaaaaaoooooiiiinnnnsssshhhrrrdddllluuccmmwwffggyyppbbvk"


def bodies() -> list[bytes]:
    """The bodies, the same in every run, each of `BODY_BYTES` bytes that JSON takes as they are."""
    dice = random.Random(42)
    words = ["".join(dice.choices(_LETTERS, k=dice.randint(2, 9))) for _ in range(_WORDS)]
    return [" ".join(dice.choices(words, k=BODY_BYTES // 3))[:BODY_BYTES].encode() for _ in range(_COUNT)]
