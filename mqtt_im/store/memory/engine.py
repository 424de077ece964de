"""The store in memory, and what the ledger would do with a batch."""

from __future__ import annotations

from collections.abc import Sequence

from mqtt_im.core.apply import apply
from mqtt_im.core.entries import Entry, render, void_entry
from mqtt_im.core.gone import without_content
from mqtt_im.core.model import User
from mqtt_im.core.records import Act, AnyRecord, Edited, GroupChange, Message, Recalled, decode, encode
from mqtt_im.core.rules.files import files_of
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.commits import Author, Commit
from mqtt_im.store.common.rendering import AtHand
from mqtt_im.store.common.scrubbing import scrubbed
from mqtt_im.store.given import Given
from mqtt_im.store.jobs.job import Job

from .state import MemoryState


class MemoryEngine(AtHand):
    """`interface.Engine` on a `MemoryState`; `run` does what the ledger does with a batch."""

    alone = True

    def __init__(self, given: Given = Given()) -> None:  # noqa: B008 - nothing of it changes
        self.limits = given.limits
        self.online = given.online
        self.loaded_upto = 0
        self.cut_off: set[tuple[str, str]] = set()
        self.now = self.behind = self.ahead = 0
        self.last = 0
        """The newest log row."""
        self._claim = given.claim
        self._uploads = given.uploads
        self.state = MemoryState(given.has_account, self._take_back, self._uploads.find)

    def restart(self) -> None:
        """As if the process had ended here, and another one had begun with the same log."""
        self.loaded_upto = self.last
        self.cut_off = self.state.exposed_devices()

    def _take_back(self, user: str, pos: int) -> bool:
        found = self.state.items(self.state.user(user), pos - 1, 1)
        if found and abs(found[0][1]) <= self.loaded_upto and any(owner == user for owner, _ in self.cut_off):
            return False  # the former process may have offered it
        return self._claim(user, pos)

    def run(self, batch: Sequence[Job], now: int, behind: int = 0) -> None:
        """The jobs are over, and have been told so. `now` is the time in ms since 1970, the steady time `behind` that."""
        self.now = max(self.now, now)
        self.behind = behind
        for job in batch:
            try:
                job.prepare(self)
            except Refusal as refusal:
                job.refuse(refusal)
        for job in batch:
            if job.refusal is None:
                try:
                    job.finish(self)
                except Refusal as refusal:
                    job.refuse(refusal)
        for job in batch:
            job.done()

    def offered_upto(self, user: str, device: str) -> int:
        """See `interface.Engine`."""
        return self.loaded_upto if (user, device) in self.cut_off else 0

    def delivers(self, user: str, device: str) -> bool:
        """See `interface.Engine`."""
        return self.state.device(user, device) is not None

    def left(self, user: str, device: str) -> None:
        """See `interface.Engine`: what was offered is known here."""

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""
        self.last += 1
        if isinstance(record, Recalled | Edited):
            for lsn, gone in scrubbed(self.state, record, self.state.record, self._uploads):
                self.state.log[lsn] = without_content(gone)
        elif isinstance(record, Message):
            self._uploads.carry(files_of(record), record.conv, record.seq)
        self.state.log[self.last] = decode(encode(record))
        names = apply(self.state, self.last, record)
        commit = Commit(self.last, record)
        if names is not None and isinstance(record, Act):
            commit.address(names, record.pos, self.online)
        author.commits = [*(author.commits or ()), commit]

    append_soon = append

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """See `interface.Engine`."""
        return self.entry(record)

    def entry(self, record: AnyRecord) -> Entry:
        """See `interface.Engine`."""
        amended = self.state.amended(self.state.conv_for(record.conv), record.seq) if isinstance(record, Act) else None
        return render(record, amended, self.state.record)

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """See `interface.Engine`."""
        found: list[tuple[int, Entry]] = []
        for pos, lsn in self.state.items(owner, after, limit):
            record = self.state.log.get(abs(lsn))
            if lsn < 0:
                entry = void_entry("replaced")
            elif record is None:
                entry = void_entry("retention")
            else:
                entry = self.entry(record)
            found.append((pos, entry))
            max_bytes -= entry.size
            if max_bytes < 0:
                break
        return found

    def probe(self) -> None:
        """See `interface.Engine`."""
