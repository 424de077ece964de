"""How often logins may fail, from one address and for one account. Pure: time comes in as an argument.

Each address and each account has a bucket of failures, refilled over time. An empty one means that passwords are no longer
looked at for a while. That must lock out nobody who knows the right one, so three things pass an empty bucket, each within a
bound of its own:

- users who were let in from that address before, who keep a small bucket for themselves;
- an account's first try from an address, where it is the account that others guess at;
- a password that was refused unseen and comes back, since a guesser has others to try.

Nothing locks out the machine itself: what comes from there comes from a proxy, for everybody. Refusals that cost the server
nothing are answered at once only as long as they are few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from mqtt_im.config.peers import is_loopback, network_of
from mqtt_im.shares import Bounds

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

KNOWN_USER_FAILURES = 5
RETURNS_PER_MINUTE: Final = 240
"""Passwords that come back, for each account and each address: four a second, so a right one waits for seconds at most."""
FIRST_TRIES_PER_MINUTE: Final = 120
"""First tries of an account from addresses of which nobody knows; who guesses from many addresses has not more than that."""
RETURN_S: Final = (0.5, 60.0)
"""After how long, and for how long, a password that was refused unseen may come back."""
REFUSALS_PER_MINUTE = 30
"""So many refusals that cost nothing are answered at once to one party."""
HOLD_UP_S = 2.0
"""The others are answered so late, so that who hammers waits for his own answers."""
MAX_ENTRIES = 20_000
"""Of each kind, of which there are nine; each takes about 350 bytes."""
_BURST: Final = 8.0
_FRESH_AGAIN_S: Final = 600.0
"""So long ago a failure of an account from an address, or of the address, is forgotten."""


class _Recent(OrderedDict[_Key, _Value], Generic[_Key, _Value]):
    """Entries of which the longest unseen go first, so that memory is bounded."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def touch(self, key: _Key, value: _Value) -> _Value:
        """The entry of this key, or `value` where there was none; it is the newest now."""
        found = self.setdefault(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
        return found


class _Bucket:
    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float) -> None:
        self.left = left
        self.at = at

    def refilled(self, per_minute: int, now: float) -> float:
        """What is in it now."""
        self.left = min(float(per_minute), self.left + (now - self.at) * per_minute / 60)
        self.at = now
        return self.left

    def take(self, per_minute: int, now: float) -> bool:
        """Take one out; False where there is none."""
        if self.refilled(per_minute, now) < 1:
            return False
        self.left -= 1
        return True


class LoginLimits:
    """The failures of the recent past; memory is bounded, the longest unseen entries go first."""

    def __init__(self, failures_per_minute: int, failures_per_account: int, bounds: Bounds | None = None) -> None:
        """From one address, and for one account, in a minute."""
        most = (bounds or Bounds()).of(MAX_ENTRIES)
        self.failures_per_minute = failures_per_minute
        self.failures_per_account = failures_per_account
        self._addresses: _Recent[str, _Bucket] = _Recent(most)
        self._accounts: _Recent[str, _Bucket] = _Recent(most)
        self._known: _Recent[tuple[str, str], _Bucket] = _Recent(most)
        self._failed: _Recent[tuple[str, str], float] = _Recent(most)
        """When an account last failed to be logged in to from an address."""
        self._suspects: _Recent[str, float] = _Recent(most)
        """When an address last failed, but for what its known users got wrong."""
        self._refused: _Recent[bytes, float] = _Recent(most)
        """When a password was first refused unseen, by what stands for it."""
        self._returns: _Recent[str, _Bucket] = _Recent(most)
        self._first_tries: _Recent[str, _Bucket] = _Recent(most)
        self._refusals: _Recent[str, _Bucket] = _Recent(most)

    def allows(self, address: str, user: str, now: float) -> bool:
        """Whether a password from there is worth a look. Without `user` it is a token, of which nobody knows whose."""
        network = network_of(address)
        if self.knows(address, user, now):
            return True
        from_there = self._addresses.get(network)
        if from_there is not None and from_there.refilled(self.failures_per_minute, now) < 1 and not is_loopback(address):
            return False
        account = self._accounts.get(user)
        return account is None or account.refilled(self.failures_per_account, now) >= 1

    def knows(self, address: str, user: str, now: float) -> bool:
        """Whether the user was let in from there before, and was not wrong too often since."""
        known = self._known.get((network_of(address), user))
        return known is not None and known.refilled(KNOWN_USER_FAILURES, now) >= 1

    def suspects(self, address: str, now: float) -> bool:
        """Whether something from there was wrong not long ago."""
        return now - self._suspects.get(network_of(address), -_FRESH_AGAIN_S) < _FRESH_AGAIN_S

    def first_try(self, address: str, user: str, now: float) -> bool:
        """Whether a password that is not worth a look is looked at all the same, as the account's first one from there."""
        network = network_of(address)
        from_there = self._addresses.get(network)
        if from_there is not None and from_there.refilled(self.failures_per_minute, now) < 1 and not is_loopback(address):
            return False
        if now - self._failed.get((network, user), -_FRESH_AGAIN_S) < _FRESH_AGAIN_S:
            return False
        bucket = self._first_tries.touch(user, _Bucket(_BURST, now))
        bucket.left = min(_BURST, bucket.refilled(FIRST_TRIES_PER_MINUTE, now))
        return bucket.take(FIRST_TRIES_PER_MINUTE, now)

    def comes_back(self, address: str, user: str, digest: bytes, now: float) -> bool:
        """Whether a password that is not worth a look is looked at all the same, because it was refused unseen before."""
        first = self._refused.touch(digest, now)
        if now - first > RETURN_S[1]:
            first = self._refused[digest] = now
        if now - first < RETURN_S[0]:
            return False
        for party in (f"@{network_of(address)}", user):
            bucket = self._returns.touch(party, _Bucket(_BURST, now))
            if bucket.refilled(RETURNS_PER_MINUTE, now) < 1:
                return False
        for party in (f"@{network_of(address)}", user):
            self._returns[party].left = min(_BURST, self._returns[party].left) - 1
        del self._refused[digest]
        return True

    def succeeded(self, address: str, user: str, now: float) -> None:
        """Note that `user` was let in from there."""
        self._known.touch((network_of(address), user), _Bucket(KNOWN_USER_FAILURES, now))

    def failed(self, address: str, user: str, now: float) -> None:
        """Note a wrong name, password or token."""
        network = network_of(address)
        if user:
            self._failed.touch((network, user), now)
            self._failed[network, user] = now
            account = self._accounts.touch(user, _Bucket(self.failures_per_account, now))
            account.left = max(0.0, account.refilled(self.failures_per_account, now) - 1)
        known = self._known.get((network, user))
        if known is not None and known.take(KNOWN_USER_FAILURES, now):
            return
        self._suspects.touch(network, now)
        self._suspects[network] = now
        from_there = self._addresses.touch(network, _Bucket(self.failures_per_minute, now))
        from_there.left = max(0.0, from_there.refilled(self.failures_per_minute, now) - 1)

    def hold_up(self, address: str, now: float) -> float:
        """After how many seconds one more refusal that has cost nothing is to be answered."""
        bucket = self._refusals.touch(network_of(address), _Bucket(REFUSALS_PER_MINUTE, now))
        return 0.0 if bucket.take(REFUSALS_PER_MINUTE, now) else HOLD_UP_S
