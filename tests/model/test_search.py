"""The search index against a dictionary: messages that come, change and go, steps of any size, failures and losses anywhere."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mqtt_im.core.records import Edited, Message, ReadMark, Recalled, encode
from mqtt_im.search.file import FILE_NAME, remove
from mqtt_im.search.finding import FOREVER, Query
from mqtt_im.search.index import SearchIndex
from mqtt_im.search.words import phrases_of
from mqtt_im.store.queries.reach import Part, Reach
from mqtt_im.store.sqlite.tables.files import open_log
from mqtt_im.store.sqlite.tables.log import Log
from tests.support.store import Crash

CONVS = ("alice:bob", "alice:carol", "#ops")
WORDS = ("red", "green", "blue", "天气", "天很气")
EPOCH = "e"

words = st.lists(st.sampled_from(WORDS), max_size=3)


class Searching(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for name, value in (("shards.SHARD_ROWS", 5), ("finding._MANY", 1), ("finding._IN_VAIN", 2)):
            self.patch.setattr(f"mqtt_im.search.{name}", value)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.db = open_log(self.path, "off")
        self.log = Log(self.db)
        self.lsn = 0
        self.counts = dict.fromkeys(CONVS, 0)
        self.messages: dict[tuple[str, int], tuple[int, list[str], list[int]]] = {}
        """What stands: log row, words, log rows of its edits."""
        self.secrets: set[str] = set()
        """A word of its own for each text of a message that was recalled or taken by retention."""
        self.names: dict[tuple[str, int], list[str]] = {}
        self.index = SearchIndex(self.path, EPOCH)

    def teardown(self) -> None:
        if not hasattr(self, "index"):
            return
        self.catch_up()
        self.index.purge()
        content = b"".join(file.read_bytes() for file in self.path.glob(FILE_NAME + "*"))
        held = {word for word in self.secrets if word.encode() in content}
        self.index.close()
        self.db.close()
        self.folder.cleanup()
        self.patch.undo()
        assert not held

    def body(self, key: tuple[str, int], said: list[str]) -> bytes:
        name = f"own{self.lsn}text"
        self.names.setdefault(key, []).append(name)
        return json.dumps(" ".join([*said, name])).encode()

    @rule(conv=st.sampled_from(CONVS), said=words)
    def say(self, conv: str, said: list[str]) -> None:
        self.lsn += 1
        self.counts[conv] += 1
        key = (conv, self.counts[conv])
        record = Message(self.lsn, conv, key[1], "alice", "phone", None, 0, [], self.body(key, said))
        self.log.append([(self.lsn, encode(record))], [])
        self.messages[key] = (self.lsn, said, [])

    @rule(data=st.data(), said=words)
    def edit(self, data: st.DataObject, said: list[str]) -> None:
        if self.messages:
            key = data.draw(st.sampled_from(sorted(self.messages)))
            self.lsn += 1
            lsn, _, edits = self.messages[key]
            record = Edited(self.lsn, *key, "alice", "phone", None, 0, [], self.body(key, said))
            self.log.append([(self.lsn, encode(record))], [])
            self.messages[key] = (lsn, said, [*edits, self.lsn])

    @rule(data=st.data())
    def recall(self, data: st.DataObject) -> None:
        if self.messages:
            key = data.draw(st.sampled_from(sorted(self.messages)))
            self.lsn += 1
            lsn, _, edits = self.messages.pop(key)
            bare: list[tuple[bytes, int]] = [
                (encode(Message(lsn, *key, "alice", "phone", None, 0, [], None)), lsn),
                *((encode(Edited(edit, *key, "alice", "phone", None, 0, [], None)), edit) for edit in edits),
            ]
            self.log.append([(self.lsn, encode(Recalled(self.lsn, *key, "alice", "phone", None, 0, [])))], bare)
            self.secrets.update(self.names[key])

    @rule(upto=st.integers(0, 30))
    def retain(self, upto: int) -> None:
        """Retention takes what is old, and the edits of it."""
        old = [key for key, (lsn, _, _) in self.messages.items() if lsn <= self.lsn - upto]
        gone = [row for key in old for row in (self.messages[key][0], *self.messages[key][2])]
        connection: Any = self.db.connection()  # type: ignore[no-untyped-call]
        with connection:
            connection.execute("BEGIN")
            connection.executemany("DELETE FROM log WHERE lsn = ?", [(lsn,) for lsn in gone])
            connection.execute("INSERT INTO fold (base, plan) VALUES (?, x'')", (self.lsn,))
        for key in old:
            del self.messages[key]
            self.secrets.update(self.names[key])

    @rule(count=st.integers(1, 12))
    def other_rows(self, count: int) -> None:
        rows = []
        for _ in range(count):
            self.lsn += 1
            rows.append((self.lsn, encode(ReadMark(self.lsn, "alice", "alice:bob", 1))))
        self.log.append(rows, [])

    @rule(limit=st.integers(1, 12))
    def follow(self, limit: int) -> None:
        self.index.follow(limit)

    @rule()
    def sweep(self) -> None:
        self.index.sweep()

    @rule()
    def purge(self) -> None:
        self.index.purge()

    @rule(method=st.sampled_from(["_add", "_mark", "_take_out", "_drop"]), limit=st.integers(1, 12))
    def fail(self, method: str, limit: int) -> None:
        """A step that ends in the middle."""

        def crash(*args: Any) -> None:
            raise Crash

        setattr(self.index, method, crash)
        try:
            self.index.follow(limit)
            self.index.sweep()
        except Crash:
            pass
        finally:
            delattr(self.index, method)

    @rule(lost=st.booleans())
    def reopen(self, lost: bool) -> None:
        self.index.close()
        if lost:
            remove(self.path)
        self.index = SearchIndex(self.path, EPOCH)

    def catch_up(self) -> None:
        while self.index.follow(7) or self.index.sweep():
            pass

    @rule(
        asked=st.sampled_from(["red", "red green", "天气", "blue 天", "violet"]),
        convs=st.sets(st.sampled_from(CONVS)),
        lowest=st.integers(1, 4),
        before=st.integers(0, 60),
        limit=st.integers(1, 5),
    )
    def search(self, asked: str, convs: set[str], lowest: int, before: int, limit: int) -> None:
        self.catch_up()
        parts = [Part(conv, 0, FOREVER, ((lowest, FOREVER),)) for conv in convs]
        query = Query(phrases_of(asked), Reach(parts), before)
        found: list[int] = []
        below = FOREVER
        while below:
            part = self.index.find(query, below, limit, time.monotonic() + 60)
            found += part.lsns
            below = part.below
        expected = [
            lsn
            for (conv, seq), (lsn, said, _) in self.messages.items()
            if conv in convs and seq >= lowest and lsn < before and all(holds(said, word) for word in asked.split())
        ]
        assert found == sorted(expected, reverse=True)

    @invariant()
    def position_is_within_the_log(self) -> None:
        if hasattr(self, "index"):
            assert 0 <= self.index.position <= self.lsn


def holds(said: list[str], word: str) -> bool:
    return any(word == other or (not word.isascii() and word in other) for other in said)


TestSearching = Searching.TestCase
