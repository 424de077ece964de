"""What the ledger is gathering to be committed as one transaction: new rows of the log, and rows written anew."""

from __future__ import annotations

from collections.abc import Callable, Container

from mqtt_im.core.gone import without_content
from mqtt_im.core.model import former_readers
from mqtt_im.core.records import AMENDMENTS, Act, AnyRecord, Edited, GroupChange, Message, Recalled, encode
from mqtt_im.core.rules.common import own_pos
from mqtt_im.core.rules.files import files_of
from mqtt_im.store.commits import Author, Commit
from mqtt_im.store.common.scrubbing import scrubbed
from mqtt_im.store.uploads import Uploads

from .state.projected import MANY, ProjectedState
from .tables.log import Log


class Batch:
    """Rows that are part of the state, and of the log once they are committed."""

    def __init__(
        self, log: Log, state: ProjectedState, online: Container[str], uploads: Uploads, erase: Callable[[], None]
    ) -> None:
        """`erase` is called when something was recalled with a commit that is on disk."""
        self._log = log
        self._erase = erase
        self._state = state
        self._online = online
        self._uploads = uploads
        self._rows: list[tuple[int, bytes]] = []
        self._rewrites: list[tuple[bytes, int]] = []
        self._recalled = False
        self._large: list[Act] = []
        """Records with many recipients."""
        self.weight = 0
        """See `interface.Store`."""

    def append(self, author: Author, lsn: int, record: AnyRecord) -> list[int]:
        """The record is row `lsn` of the log, the next one; returns which other rows were written anew."""
        rewritten: list[int] = []
        if type(record) is Recalled or type(record) is Edited:
            rewritten = self._scrub(record)
        elif type(record) is Message and (extra := record.extra) is not None:
            self.weight += len(extra.get("mentions", ())) + len(extra.get("replaced", ()))
            if "files" in extra:
                self._uploads.carry(files_of(record), record.conv, record.seq)
        data = encode(record)
        self._rows.append((lsn, data))
        self.weight += 10 + (len(data) >> 10)
        names = self._state.take(lsn, record, len(data))
        commit = Commit(lsn, record)
        if names is not None and isinstance(record, Act):
            self.weight += len(names)
            if len(names) > MANY:
                self._large.append(record)
            commit.address(names, record.pos, self._online)
            if type(record) in AMENDMENTS:
                # Now, since the next record of the batch may change who is a member.
                former = former_readers(self._state.conv_for(record.conv), record.seq)
                commit.former = [name for name in former if name in self._online]
        if author.commits is None:
            author.commits = [commit]
        else:
            author.commits.append(commit)
        return rewritten

    def commit(self) -> bool:
        """Everything appended is on disk; whether there was anything. Raises `sqlite3.Error`; then the state is stale."""
        if not self._rows:
            return False
        self._uploads.commit()
        self._log.append(self._rows, self._rewrites)
        self._rows.clear()
        self._rewrites.clear()
        self.weight = 0
        self._state.settle()
        for record in self._large:
            _shorten(record)
        self._large.clear()
        if self._recalled:
            self._recalled = False
            self._erase()
        return True

    def _scrub(self, act: Recalled | Edited) -> list[int]:
        """The content of a recalled message is gone, from its row and from that of its last edit, with the same commit.

        Returns these rows.
        """
        state = self._state
        self._recalled = self._recalled or type(act) is Recalled
        rewritten: list[int] = []
        for lsn, record in scrubbed(state, act, state.whole, self._uploads):
            gone = without_content(record)
            rewritten.append(lsn)
            state.replace_record(lsn, gone)
            data = encode(gone)
            if self._rows and lsn >= self._rows[0][0]:  # sent and changed within one batch
                self._rows[lsn - self._rows[0][0]] = (lsn, data)
            else:
                self._rewrites.append((data, lsn))
        return rewritten


def _shorten(record: Act) -> None:
    """Whoever is told of the record holds it for a while, and needs none of the numbers but its author's own."""
    record.pos = [own_pos(record, record.by)] if isinstance(record, Message) else []
    if isinstance(record, GroupChange):
        record.users = []
