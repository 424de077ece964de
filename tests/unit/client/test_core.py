"""The client's state machines, one at a time."""

from __future__ import annotations

import json
import math

import pytest

from mqtt_im.client.core.backoff import Backoff
from mqtt_im.client.core.effects import Effect, Publish, Refuse
from mqtt_im.client.core.entries import Entry
from mqtt_im.client.core.inbox import MAX_EVENTS, Inbox, Marks
from mqtt_im.client.core.liveness import FIRST_INTERVAL_S, Liveness, Path
from mqtt_im.client.core.outbox import Outbox
from mqtt_im.client.core.packets import Unanswered
from mqtt_im.client.core.session import Session


def message(pos: int) -> dict[str, object]:
    return {"op": "msg", "pos": pos}


def reaction(pos: int) -> dict[str, object]:
    return {"op": "reacted", "pos": pos}


def entry(key: int, op: str = "send", **options: object) -> Entry:
    return Entry(key, f"c{key}", op, {"conv": "a:b", "seq": key}, "json", n=None if op == "read" else key, **options)  # type: ignore[arg-type]


class TestBackoff:
    def test_within_a_second_then_doubling_to_a_minute(self) -> None:
        backoff = Backoff(lambda: 1.0)
        assert [backoff.failed(0) for _ in range(9)] == [1, 1, 2, 4, 8, 16, 32, 60, 60]

    def test_full_jitter(self) -> None:
        assert Backoff(lambda: 0.0).failed(0) == 0

    def test_ten_seconds_online_begin_anew_and_less_do_not(self) -> None:
        backoff = Backoff(lambda: 1.0)
        for _ in range(5):
            backoff.failed(0)
        backoff.online(100)
        assert backoff.failed(109) == 16
        backoff.online(200)
        assert backoff.failed(210) == 1

    def test_the_server_may_ask_for_time(self) -> None:
        backoff = Backoff(lambda: 0.0)
        backoff.not_before(30)
        assert backoff.failed(10) == 20
        backoff.reset()
        assert backoff.failed(10) == 0


class TestLiveness:
    def test_silence_is_asked_and_an_answer_in_time_lengthens_it(self) -> None:
        line = Liveness(0, Path(), 600)
        assert line.ping_due() == FIRST_INTERVAL_S
        line.pinged(60)
        assert line.dead_at() == pytest.approx(62, abs=0.1)
        line.heard(60.1)
        line.ponged(60.1)
        assert line.dead_at() == math.inf
        assert line.ping_due() == pytest.approx(60.1 + 90)

    def test_the_interval_never_passes_the_keep_alive(self) -> None:
        line, now = Liveness(0, Path(), 200), 0.0
        for _ in range(10):
            now = line.ping_due()
            line.pinged(now)
            line.heard(now)
            line.ponged(now)
        assert line.interval == 200

    def test_what_broke_is_not_tried_again(self) -> None:
        line = Liveness(0, Path(interval=135), 600)
        line.pinged(135)
        path = line.lost()
        assert path.interval == 90
        line = Liveness(0, path, 600)
        line.pinged(90)
        line.heard(90)
        line.ponged(90)
        assert line.path.interval == 90

    def test_what_is_under_way_takes_its_time(self) -> None:
        line = Liveness(0, Path(rate=1_000), 600)
        line.sent(0, 1, 5_000)
        assert line.dead_at() == pytest.approx(7)
        line.heard(6)
        assert line.dead_at() == pytest.approx(13)

    def test_a_line_that_may_only_be_slow_gets_more_time_the_next_time(self) -> None:
        line = Liveness(0, Path(rate=8_000), 600)
        line.sent(0, 1, 5_000)
        assert line.lost().rate == 2_000

    def test_four_round_trips(self) -> None:
        line = Liveness(0, Path(rate=1e9), 600)
        line.sent(0, 1, 10)
        line.answered(1, 1)
        line.sent(1, 2, 10)
        line.heard(1)
        assert line.dead_at() == pytest.approx(5, abs=0.01)

    def test_fewer_pings_in_the_background_and_none_without_keep_alive(self) -> None:
        line = Liveness(0, Path(), 600)
        line.background = True
        assert line.ping_due() == 120
        assert Liveness(0, Path(), 0).ping_due() == math.inf

    def test_the_server_hears_of_us_within_the_keep_alive(self) -> None:
        line = Liveness(0, Path(interval=60), 60)
        line.heard(50)
        assert line.ping_due() == 60


class TestInbox:
    def test_a_restart_shows_again_what_was_in_hand_and_nothing_else(self) -> None:
        first = Inbox(Marks("e"))
        for pos in (1, 2, 3):
            assert first.offer(message(pos))
        assert first.next_message() == (message(1), False)
        first.handed_over()
        first.done(1, "e")
        assert first.next_message() == (message(2), False)
        first.handed_over()
        marks = first.marks()
        assert marks == Marks("e", cursor=1, messages=1, in_hand=2)
        second = Inbox(marks)
        for pos in (2, 3):
            second.offer(message(pos))
        assert second.next_message() == (message(2), True)
        second.done(2, "e")
        assert second.next_message() == (message(3), False)

    def test_what_was_not_handed_over_is_not_again(self) -> None:
        inbox = Inbox(Marks("e"))
        inbox.offer(message(1))
        inbox.next_message()
        assert inbox.next_message() == (message(1), False)

    def test_the_readers_do_not_wait_for_each_other(self) -> None:
        inbox = Inbox(Marks("e"))
        inbox.listening = True
        for item in (message(1), reaction(2), message(3), reaction(4)):
            inbox.offer(item)
        assert [inbox.take_event()["pos"] for _ in range(2)] == [2, 4]
        assert inbox.cursor == 0
        inbox.next_message()
        inbox.done(1, "e")
        assert inbox.cursor == 2
        again = Inbox(inbox.marks())
        again.listening = True
        for item in (message(3), reaction(4)):
            again.offer(item)
        assert again.next_event() is None

    def test_events_that_nobody_reads_are_done(self) -> None:
        inbox = Inbox(Marks("e"))
        inbox.offer(reaction(1))
        inbox.happened({"op": "typing"})
        assert (inbox.cursor, inbox.next_event()) == (1, None)

    def test_of_too_many_events_those_without_a_position_go_first(self) -> None:
        inbox = Inbox(Marks("e"))
        inbox.listening = True
        for number in range(MAX_EVENTS):
            inbox.happened({"op": "typing", "number": number})
        inbox.offer(reaction(1))
        assert len(inbox.events) == MAX_EVENTS
        assert inbox.events[0]["number"] == 1
        assert inbox.events[-1] == reaction(1)

    def test_a_void_covers_its_range(self) -> None:
        inbox = Inbox(Marks("e", cursor=2))
        assert inbox.offer({"op": "void", "pos": 9, "from": 2, "why": "retention"})
        assert (inbox.received, inbox.cursor) == (9, 9)

    def test_done_of_another_store_is_nothing(self) -> None:
        inbox = Inbox(Marks("e"))
        inbox.offer(message(1))
        inbox.next_message()
        assert inbox.begin("f", 5) == (0, 0)
        assert not inbox.done(1, "e")
        assert (inbox.cursor, inbox.hand) == (5, None)


class TestOutbox:
    def test_hello_names_the_number_before_the_oldest_unanswered(self) -> None:
        outbox = Outbox([entry(3, tried=True), entry(4, tried=True), entry(5)], last_n=2)
        assert outbox.connected() == 2
        assert [each.n for each in outbox.take(0, 10_000)] == [3, 4, 5]

    def test_reads_go_together_and_do_not_count(self) -> None:
        outbox = Outbox()
        outbox.add(entry(1, "read"))
        assert outbox.read_of("a:b") is not None
        assert len(outbox) == 0
        outbox.take(0, 10_000)
        assert outbox.read_of("a:b") is None

    def test_what_is_too_large_waits_and_holds_up_what_is_behind(self) -> None:
        outbox = Outbox([entry(1), entry(2)])
        assert outbox.take(0, 10) == []

    def test_out_of_order_without_an_end_slows_down(self) -> None:
        outbox = Outbox([entry(1)])
        outbox.connected()
        now, pauses = 0.0, []
        for _ in range(9):
            assert outbox.take(now, 10_000)
            outbox.put_back("c1", now, expected=7)
            pauses.append(outbox.due(now) - now if outbox.due(now) < math.inf else 0.0)
            now += pauses[-1]
        assert pauses[:2] == [0, 0]
        assert pauses[-1] == 30


class TestRefusedTwice:
    """MQTT 5 tells a refusal in an `error` and in a reason code, and what was refused may be on its way again in between."""

    def test_the_second_word_about_one_packet_changes_nothing(self) -> None:
        session, first, second = self.two_under_way()
        again = self.refused(session, "c1", "not_found") + self.refused(session, "c2", "out_of_order", expected=1)
        assert [self.named(each) for each in self.sent(again)] == [("c2", 1)]
        assert session.puback(0, first.token, 0x87, "not_found: no") == []
        assert session.puback(0, second.token, 0x83, "out_of_order: no") == []
        assert list(session.outbox.under_way) == ["c2"]

    def test_nor_where_the_code_comes_first(self) -> None:
        session, first, second = self.two_under_way()
        again = session.puback(0, first.token, 0x87, "not_found: no")
        again += session.puback(0, second.token, 0x83, "out_of_order: no")
        assert [self.named(each) for each in self.sent(again)] == [("c2", 1)]
        assert self.refused(session, "c1", "not_found") == []
        assert self.refused(session, "c2", "out_of_order", expected=1) == []
        assert list(session.outbox.under_way) == ["c2"]

    def two_under_way(self) -> tuple[Session, Publish, Publish]:
        session = Session("a", "pc", Outbox([entry(1, tried=True), entry(2, tried=True)]), Inbox(Marks()), codec="json")
        hello, first, second = self.sent(session.connected(0, 100))
        welcome = {"op": "welcome", "id": json.loads(hello.payload)["id"], "pos": 0, "epoch": "e"}
        session.received(0, "im/v1/a/down", json.dumps(welcome).encode(), 0)
        assert [self.named(each) for each in (first, second)] == [("c1", 1), ("c2", 2)]
        return session, first, second

    def refused(self, session: Session, request_id: str, code: str, **fields: object) -> list[Effect]:
        error = {"op": "error", "id": request_id, "code": code, "message": "no", "retry": False, **fields}
        return session.received(0, "im/v1/a/down", json.dumps(error).encode(), 0)

    def sent(self, effects: list[Effect]) -> list[Publish]:
        return [effect for effect in effects if isinstance(effect, Publish)]

    def named(self, publish: Publish) -> tuple[str, int]:
        request = json.loads(publish.payload)
        return request["id"], request["n"]


def test_a_device_that_is_not_taken_knows_why() -> None:
    """The server tells it before it refuses the subscription: then the greeting has nothing that it could be answered on."""
    session = Session("a", "pc", Outbox([]), Inbox(Marks()), codec="json")
    session.connected(0, 100)
    told = {"op": "error", "code": "quota", "message": "a has 1 device", "retry": False}
    assert session.received(0, "im/v1/a/down", json.dumps(told).encode(), 0) == [Refuse("quota: a has 1 device")]


def test_changes_without_an_answer_are_repeated_ever_more_slowly() -> None:
    unanswered = Unanswered()
    now, pauses = 0.0, []
    for _ in range(7):
        unanswered.acknowledged("c1", now, paused=False)
        pauses.append(unanswered.due() - now)
        now = unanswered.due()
        assert unanswered.take(now) == ["c1"]
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    unanswered.acknowledged("c1", now, paused=True)
    assert unanswered.due() - now < 0.1
    unanswered.forget("c1")
    assert unanswered.due() == math.inf
