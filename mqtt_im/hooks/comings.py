"""Who has come or gone, and was not taken in by the outbox yet: of each user the last word, for any thread.

However long the outbox can't be written, that is no more than one word for each user, and no more than `MOST_BYTES`: what is
beyond that is forgotten, and found again by comparing who is online with who was told to be.
"""

from __future__ import annotations

import threading
from typing import Final

MOST_BYTES: Final = 8 << 20
_WORD_BYTES: Final = 250
"""Of a word, beside the name."""

Word = tuple[bool, int]
"""Whether the user is online, and else since when not, in ms since 1970."""


class Comings:
    """What `add` says until it is `done`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: dict[str, Word] = {}
        self._bytes = 0
        self._compare = False

    def add(self, user: str, online: bool, seen: int) -> bool:
        """A user has come, or has gone at `seen`; whether nothing was there to be taken in before."""
        with self._lock:
            first = not self._words
            if user not in self._words:
                self._bytes += _WORD_BYTES + len(user)
            self._words[user] = online, seen
            if self._bytes > MOST_BYTES:
                self._words.clear()
                self._bytes = 0
                self._compare = True
            return first

    def compare(self) -> None:
        """What was told is to be compared with who is online."""
        with self._lock:
            self._compare = True

    def take_compare(self) -> bool:
        """Whether that is so; it is about to be done: what is said from now on comes after it."""
        with self._lock:
            compare, self._compare = self._compare, False
            return compare

    def words(self) -> dict[str, Word]:
        """What there is."""
        with self._lock:
            return dict(self._words)

    def done(self, words: dict[str, Word]) -> None:
        """These were taken in; what was said since stays."""
        with self._lock:
            for user, word in words.items():
                if self._words.get(user) == word:
                    del self._words[user]
                    self._bytes -= _WORD_BYTES + len(user)
