"""Token buckets: how fast each user, and each address, may be. Time comes in as an argument, in seconds."""

from __future__ import annotations

from typing import Final

MAX_DEBT_S: Final = 5.0
"""No request, however much it turned out to cost, makes the next one wait longer than that."""

_FEW: Final = 1024
"""So many buckets are not worth a look at which of them are full again."""


class Bucket:
    """A token bucket: `rate` a second, with a burst of twice that.

    It is kept as the one moment up to which what was let through has been paid for, which needs no refilling.
    """

    __slots__ = ("burst", "cost", "paid_until", "turn", "turn_ends")

    def __init__(self, rate: float) -> None:
        self.cost = 1.0 / rate
        """Seconds that one request takes up."""
        self.burst = 2.0 - self.cost
        """How far `paid_until` may lie ahead before one more request, in seconds."""
        self.paid_until = 0.0
        self.turn = self.turn_ends = 0.0
        """The turn of the loop in which something was handled last, and when it is enough for that turn; see `Connection`."""

    def owes(self, now: float) -> float:
        """Seconds until what was charged is paid for, and one more request is let through."""
        return max(0.0, self.paid_until - now - self.burst)

    def take(self, now: float) -> float:
        """Let one request through and return 0, or return the seconds after which to try again."""
        paid = self.paid_until
        if paid < now:
            self.paid_until = now + self.cost
            return 0.0
        wait = paid - now - self.burst
        # A timer may fire a clock tick early; a nanosecond is no reason to wait again.
        if wait > 1e-9:
            return wait
        self.paid_until = paid + self.cost
        return 0.0

    def charge(self, units: float, now: float) -> None:
        """Have what was let through pay for so many requests more, or give some of that back where it is less than 0."""
        paid = max(self.paid_until, now) + units * self.cost
        self.paid_until = min(paid, max(self.paid_until, now + self.burst + MAX_DEBT_S))


class SharedBucket(Bucket):
    """A user's bucket at one of several nodes: what is spent here is counted for the others."""

    __slots__ = ("_name", "_spent")

    def __init__(self, rate: float, name: str, spent: dict[str, float]) -> None:
        """`spent` is added to, by name, in requests."""
        super().__init__(rate)
        self._name = name
        self._spent = spent

    def take(self, now: float) -> float:
        """See `Bucket`."""
        wait = super().take(now)
        if not wait:
            self._spent[self._name] = self._spent.get(self._name, 0.0) + 1.0
        return wait

    def charge(self, units: float, now: float) -> None:
        """See `Bucket`."""
        super().charge(units, now)
        self._spent[self._name] = self._spent.get(self._name, 0.0) + units

    def spent_elsewhere(self, units: float, now: float) -> None:
        """So much was spent at another node, which others need not be told by this one."""
        super().charge(units, now)


class Buckets:
    """A bucket for each name. Those that are full again are forgotten, so that many names that came once cost nothing."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}
        self._look_at = _FEW
        """How many there are when they are looked through next."""

    def take(self, name: str, now: float) -> float:
        """What `Bucket.take` says of this name's bucket."""
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._look_at:
                self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket.paid_until > now}
                self._look_at = max(_FEW, 2 * len(self._buckets))
            bucket = self._buckets[name] = Bucket(self._rate)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._buckets)
