"""What was rendered is shown again as long as it is true, and leaves when it is not, or when there is no room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.entries import Entry, render
from mqtt_im.core.records import Message, Reacted, decode
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.common import rendering
from mqtt_im.store.common.rendered import MAX_LARGE_BYTES, Rendered
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.gate import _CHANGES, Gate
from mqtt_im.store.sqlite.state import overlay
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000


def message(seq: int, body: bytes = b'"hello"', conv: str = "ann:bob") -> Message:
    return Message(NOW, conv, seq, "ann", "pc", None, 0, [seq, seq], body)


def put(kept: Rendered, lsn: int, record: Message | Reacted) -> Entry:
    entry = render(record, None, lambda _: None)
    kept.put(lsn, record, entry)
    return entry


def test_what_is_about_a_message_leaves_with_what_became_of_it() -> None:
    kept = Rendered(1 << 20)
    first, second = put(kept, 1, message(1)), put(kept, 2, message(2))
    put(kept, 3, Reacted(NOW, "ann:bob", 1, "bob", "pc", None, 0, [3, 3], "+"))
    other = put(kept, 4, message(1, conv="ann:cat"))
    assert (kept.get(1), kept.get(2), len(kept)) == (first, second, 4)
    kept.forget([], [("ann:bob", 1), ("ann:bob", 7)])
    assert [kept.get(lsn) for lsn in (1, 2, 3, 4)] == [None, second, None, other]
    kept.forget([4, 9], [])
    assert [kept.get(lsn) for lsn in (2, 4)] == [second, None]
    kept.forget([2], [("ann:bob", 2)])
    assert len(kept) == 0


def test_those_that_came_first_leave_where_there_is_no_room() -> None:
    kept = Rendered(100_000)
    for lsn in range(1, 1000):
        put(kept, lsn, message(lsn, b'"%d"' % lsn * 100))
        assert kept.bytes <= 100_000
        assert lsn < 20 or len(kept) >= 20
    assert kept.get(1) is None and kept.get(999) is not None and len(kept) < 200
    before = len(kept)
    for lsn in range(1000, 1100):
        put(kept, lsn, message(lsn, b'"%b"' % (b"x" * 500_000)))
    large = sum(kept.get(lsn) is not None for lsn in range(1000, 1100))
    assert large >= 5 and len(kept) == before + large, "large ones cost no others their place"
    assert kept.bytes <= 100_000 + MAX_LARGE_BYTES
    kept.forget([999], [("ann:bob", 998), ("ann:bob", 1)])
    assert kept.get(999) is None and kept.get(998) is None and kept.get(997) is not None
    kept.clear()
    assert (len(kept), kept.bytes, kept.get(997)) == (0, 0, None)


def test_a_reader_who_was_away_for_long_is_told_so() -> None:
    gate = Gate()
    for number in range(_CHANGES):
        gate.change([number], [])
    assert gate.changed_since(_CHANGES) == []
    assert gate.changed_since(_CHANGES - 2) == [((_CHANGES - 2,), ()), ((_CHANGES - 1,), ())]
    found = gate.changed_since(0)
    assert found is not None and len(found) == _CHANGES
    gate.change([], [("ann:bob", 1)])
    assert gate.changed_since(0) is None


def test_changes_that_name_very_much_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention names a thousand rows at a time: hundreds of such changes would stay in memory for ever."""
    monkeypatch.setattr("mqtt_im.store.sqlite.gate._NAMED", 100)
    gate = Gate()
    for number in range(50):
        gate.change(range(10 * number, 10 * number + 10), [("ann:bob", number)])
    assert gate._named == 99 == sum(len(lsns) + len(messages) for lsns, messages in gate._changed)
    found = gate.changed_since(41)
    assert found is not None and [messages for _, messages in found] == [(("ann:bob", number),) for number in range(41, 50)]
    assert gate.changed_since(40) is None
    gate.change(range(101), [])
    assert (gate.changed_since(50), gate.changed_since(51), gate._named) == (None, [], 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path, Limits(edit_window_s=-1))
    yield store
    store.close()


def ask(store: SqliteStore, request: rq.Request) -> None:
    job = RequestJob(Who("ann", "pc", 0), request, lambda _: None)
    store.run([job], NOW)
    assert job.refusal is None


def bodies(view: Readable) -> list[bytes]:
    entries = view.entries(view.state.user("bob"), 0, 100, 1 << 20)
    return [entry.tail[entry.tail.index(b'"body":') :][8:9] for _, entry in entries if entry.seq]


def test_a_change_to_one_message_renders_no_other_one_anew(store: SqliteStore) -> None:
    for _ in range(20):
        ask(store, rq.Send(to="bob", body=Raw(b'"a"')))
    assert store.see(bodies, NOW) == [b"a"] * 20
    ask(store, rq.Edit(id="e", conv="ann:bob", seq=3, body=Raw(b'"b"')))
    with patch.object(rendering, "render", side_effect=render) as again:
        assert store.see(bodies, NOW) == [b"a"] * 2 + [b"b"] + [b"a"] * 17
        assert again.call_count == 2  # the message, and the edit
        store.see(bodies, NOW)
        assert again.call_count == 2


def test_what_many_fetch_is_rendered_once_however_large(store: SqliteStore) -> None:
    """A thousand members who are told of a group of 5,000 have its names rendered once, and in memory once."""
    members = [f"m{number:04}" for number in range(1_000)]
    ask(store, rq.GroupCreate(id="g", group="#g", members=members))

    def look(view: Readable) -> list[Entry]:
        return [entry for name in members[:50] for _, entry in view.entries(view.state.user(name), 0, 100, 1 << 20)]

    with patch.object(rendering, "render", side_effect=render) as once:
        found = store.see(look, NOW) + store.see(look, NOW)
    assert once.call_count == 1 and found[0].size > 8_000
    assert len(found) == 100 and all(entry is found[0] for entry in found)


def test_what_is_shown_as_it_was_looked_at_before_is_not_told_after_it_has_changed(store: SqliteStore) -> None:
    ask(store, rq.Send(to="bob", body=Raw(b'"a"')))
    store.see(bodies, NOW)
    looks: list[list[bytes]] = []

    def look(view: Readable) -> None:
        looks.append(bodies(view))
        if len(looks) == 1:
            ask(store, rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"b"')))

    store.glance(look, NOW)
    assert looks == [[b"a"], [b"b"]]


def test_of_large_records_no_more_are_decoded_than_a_page_has_room_for(store: SqliteStore) -> None:
    """A list of 5,000 names takes milliseconds: eight of them were decoded for each page that has room for one."""
    members = [f"m{number:04}" for number in range(1_000)]
    for number in range(8):
        ask(store, rq.GroupCreate(id=f"g{number}", group=f"#g{number}", members=members))
    store.engine.flusher.flush()

    def page(after: int) -> list[tuple[int, Entry]]:
        return store.see(lambda view: view.entries(view.state.user("m0001"), after, 100, 20_000), NOW)

    found: list[tuple[int, Entry]] = []
    with patch.object(overlay, "decode", side_effect=decode) as decoded:
        while len(found) < 8:
            before = decoded.call_count
            found += (came := page(len(found)))
            assert decoded.call_count - before == len(came) <= 4
        before = decoded.call_count
        for _ in range(3):
            assert len(page(2)) == 3 and decoded.call_count == before, "nor any beside those that are kept"
    assert [pos for pos, _ in found] == list(range(1, 9))
    assert [entry.conv for _, entry in found] == [f"#g{number}" for number in range(8)]
