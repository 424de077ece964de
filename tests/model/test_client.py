"""The client's core against the server's: whatever is cut, killed or repeated, nothing is lost, doubled or reordered."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.client_world import USER, App, Server

FEW = st.integers(min_value=1, max_value=6)


class ClientMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.app = App(self.server)
        self.said = 0

    # What the app does

    @rule(count=FEW)
    def send(self, count: int) -> None:
        for _ in range(count):
            self.app.send("send", f"m{self.app.count + 1}", to="bob")

    @rule(to=st.sampled_from(["ghost", "#nowhere"]))
    def send_in_vain(self, to: str) -> None:
        self.app.send("send", "x", to=to)

    @rule()
    def edit_in_vain(self) -> None:
        self.app.send("edit", "x", conv="alice:bob", seq=99_999)

    @rule()
    def without_a_counter(self) -> None:
        self.app.send("block", user="carol")

    @rule()
    def next_message(self) -> None:
        self.app.next_message()

    @rule()
    def next_event(self) -> None:
        self.app.next_event()

    @rule(count=FEW)
    def reads_on(self, count: int) -> None:
        for _ in range(count):
            self.app.next_message()
            self.app.next_event()
            while self.app.disk_one():
                pass

    # What others do

    @rule(count=FEW)
    def others_write(self, count: int) -> None:
        for _ in range(count):
            self.said += 1
            self.server.say("bob", "send", id=f"b{self.said}", to=USER, body=f"b{self.said}")

    @rule()
    def others_react(self) -> None:
        if self.said:
            self.said += 1
            self.server.say("bob", "react", id=f"b{self.said}", conv="alice:bob", seq=1, emoji=f"{self.said}")

    # What the world does

    @rule()
    def connect(self) -> None:
        self.app.connect()

    @rule()
    def cut(self) -> None:
        self.app.cut()

    @rule(settles=st.booleans())
    def kill_the_app(self, settles: bool) -> None:
        self.app.kill()
        if settles:
            self.app.connect()
            self.app.settle()

    @rule()
    def kill_the_server(self) -> None:
        self.app.cut()
        self.server.engine.restart()

    @rule(steps=st.lists(st.sampled_from("udw"), min_size=5, max_size=60))
    def things_happen(self, steps: list[str]) -> None:
        """Packets go up and down, and writes get on disk, in any order."""
        for step in steps:
            {"u": self.app.up_one, "d": self.app.down_one, "w": self.app.disk_one}[step]()

    @rule(rounds=st.integers(min_value=1, max_value=30), reads=st.booleans())
    def the_line_is_good(self, rounds: int, reads: bool) -> None:
        if self.server.served is None:
            self.app.connect()
        for _ in range(rounds):
            self.app.up_one()
            self.app.down_one()
            self.app.disk_one()
            if reads:
                self.app.next_message()
                self.app.next_event()

    @rule()
    def everything_comes_to_rest(self) -> None:
        self.app.connect()
        self.app.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.app.tick(seconds)

    # What must hold

    @invariant()
    def messages_are_shown_once_and_in_order(self) -> None:
        before = 0
        for pos, again in self.app.shown:
            assert pos == before if again else pos > before
            before = pos

    @invariant()
    def events_are_shown_once_and_in_order(self) -> None:
        assert self.app.events == sorted(set(self.app.events))

    @invariant()
    def the_server_is_told_of_nothing_that_is_not_done(self) -> None:
        device = self.server.engine.state.device(USER, "pc")
        if device is not None and self.app.shown:
            assert device.cursor <= max(self.app.marks.cursor, 0)

    def teardown(self) -> None:
        app = self.app
        while app.disk_one():
            pass
        app.connect()
        app.settle()
        items = self.server.inbox()
        wanted = [item["pos"] for item in items if item["op"] == "msg"]
        for _ in range(len(wanted) + 2):
            app.next_message()
            app.next_event()
            app.settle()
        for _ in range(len(items)):
            app.next_event()
            app.settle()
        assert app.session.inbox.cursor == (items[-1]["pos"] if items else app.session.inbox.cursor)
        shown = [pos for pos, again in app.shown if not again]
        assert set(wanted) == {pos for pos, _ in app.shown}, "each message is shown"
        assert len(shown) == len(set(shown)), "and once"
        self.everything_sent_was_done_once(items)

    def everything_sent_was_done_once(self, items: list[dict[str, Any]]) -> None:
        app = self.app
        assert not app.rows, "nothing is left in the outbox"
        assert set(dict(app.accepted)) <= set(app.answers)
        sent = [item["id"] for item in items if item["op"] == "sent"]
        accepted = [request_id for request_id, op in app.accepted if op == "send" and app.answers[request_id] == "sent"]
        assert sent == accepted, "in the order in which they were made, each once"
        assert {app.answers[request_id] for request_id, _ in app.accepted} <= {"sent", "not_found", "not_member"}


TestClient = ClientMachine.TestCase
TestClient.settings = settings(settings.get_profile("default"), max_examples=100, stateful_step_count=40)
