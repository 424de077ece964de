"""What is done to bytes that were right."""

from __future__ import annotations

from random import Random

_ODD = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """The data with one to four things wrong; pieces of `others` may get into it."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _mutate(random, changed, others)
    return bytes(changed)


def _mutate(random: Random, data: bytearray, others: list[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    size = random.choice((1, 1, 2, 4, 16))
    match random.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1 if data:
            data[at % len(data)] = random.choice(_ODD)
        case 2:
            del data[at : at + size]
        case 3:
            data[at:at] = random.randbytes(size)
        case 4:
            data[at:at] = data[at : at + random.randrange(1, 64)]
        case 5:
            del data[at:]
        case 6 if others:
            other = random.choice(others)
            start = random.randrange(len(other) + 1)
            data[at : at + size] = other[start : start + random.randrange(1, 64)]
        case _:
            data[at : at + 2] = bytes((random.choice(_ODD), random.choice(_ODD)))


def pieces(random: Random, data: bytes) -> list[bytes]:
    """The data cut at random bytes: often not at all, sometimes everywhere."""
    if random.random() < 0.3 or len(data) < 2:
        return [data]
    if random.random() < 0.05 and len(data) < 500:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(random.randrange(1, len(data)) for _ in range(random.randrange(1, 9)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
