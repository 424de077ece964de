"""How often an address may fail to log in. Pure: time comes in as an argument.

Each address has a bucket of failures, refilled over time. An empty one means that its passwords are no longer looked at
for a while; users who were let in from it before keep a small bucket of their own, so that a guesser behind the same
router, or a device with an old password, does not lock out the others. Nothing locks out the machine itself: what comes from
there comes from a proxy, for everybody. Refusals that cost the server nothing are answered
at once only as long as they are few.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from mqtt_im.config.peers import is_loopback, network_of

_Key = TypeVar("_Key")

KNOWN_USER_FAILURES = 5
REFUSALS_PER_MINUTE = 30
"""So many refusals that cost nothing are answered at once to one party."""
HOLD_UP_S = 2.0
"""The others are answered so late, so that who hammers waits for his own answers."""
MAX_ENTRIES = 20_000


class _Bucket:
    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float) -> None:
        self.left = left
        self.at = at


class LoginLimits:
    """The failures of the recent past; memory is bounded, the longest unseen entries go first."""

    def __init__(self, failures_per_minute: int) -> None:
        self.failures_per_minute = failures_per_minute
        self._addresses: OrderedDict[str, _Bucket] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()
        self._refusals: OrderedDict[str, _Bucket] = OrderedDict()

    def allows(self, address: str, user: str, now: float) -> bool:
        """Whether a password from there is worth a look."""
        network = network_of(address)
        bucket = self._addresses.get(network)
        if bucket is None or self._refilled(bucket, self.failures_per_minute, now) >= 1:
            return True
        known = self._known.get((network, user))
        return (known is not None and self._refilled(known, KNOWN_USER_FAILURES, now) >= 1) or is_loopback(address)

    def succeeded(self, address: str, user: str, now: float) -> None:
        """Note that `user` was let in from there."""
        key = network_of(address), user
        if key not in self._known:
            self._known[key] = _Bucket(KNOWN_USER_FAILURES, now)
        _touch(self._known, key)

    def failed(self, address: str, user: str, now: float) -> None:
        """Note a wrong name or password."""
        network = network_of(address)
        known = self._known.get((network, user))
        if known is not None and self._refilled(known, KNOWN_USER_FAILURES, now) >= 1:
            known.left -= 1
            return
        bucket = self._addresses.get(network)
        if bucket is None:
            bucket = self._addresses[network] = _Bucket(self.failures_per_minute, now)
        bucket.left = max(0.0, self._refilled(bucket, self.failures_per_minute, now) - 1)
        _touch(self._addresses, network)

    def hold_up(self, address: str, now: float) -> float:
        """After how many seconds one more refusal that has cost nothing is to be answered."""
        network = network_of(address)
        bucket = self._refusals.setdefault(network, _Bucket(REFUSALS_PER_MINUTE, now))
        _touch(self._refusals, network)
        if self._refilled(bucket, REFUSALS_PER_MINUTE, now) < 1:
            return HOLD_UP_S
        bucket.left -= 1
        return 0.0

    @staticmethod
    def _refilled(bucket: _Bucket, per_minute: int, now: float) -> float:
        bucket.left = min(float(per_minute), bucket.left + (now - bucket.at) * per_minute / 60)
        bucket.at = now
        return bucket.left


def _touch(entries: OrderedDict[_Key, _Bucket], key: _Key) -> None:
    entries.move_to_end(key)
    if len(entries) > MAX_ENTRIES:
        entries.popitem(last=False)
