"""The inbox as this device sees it: two readers, of messages and of events, on one stream of items.

Everything that says what was received, shown and done lives in this file; it does no I/O.

    position   1 …… cursor | shown or waiting to be shown …… received | a gap | ahead, held until `sync` has filled the gap

`cursor` is what the server hears: everything up to it is done, by both readers. Each reader has a mark of its own, since
they do not wait for each other; after a crash it tells what of the repeated items was shown before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

Map = dict[str, Any]

EVENT_OPS: Final = frozenset({"edited", "recalled", "reacted", "report", "void"})
MAX_EVENTS: Final = 1000
MAX_AHEAD: Final = 2000
"""Items beyond a gap that are kept; `sync` brings the others again."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What of the inbox is kept on disk."""

    epoch: str = ""
    """The store that the positions belong to; empty before the first `welcome`."""
    cursor: int = 0
    messages: int = 0
    """Every message up to here is done."""
    events: int = 0
    """Every event up to here was handed over."""
    in_hand: int = 0
    """The message that the app has and has not done; 0 where it has none."""


def is_position(value: object) -> bool:
    """Whether a value from the network can be a `pos`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


class Inbox:
    """Takes items in, hands messages and events out, and knows what is done."""

    def __init__(self, marks: Marks) -> None:
        self.epoch = marks.epoch
        self.received = marks.cursor
        """Everything up to here has come, without a gap."""
        self.messages: deque[Map] = deque()
        """What is to be shown next."""
        self.events: deque[Map] = deque()
        self.hand: Map | None = None
        """The message that the app has and has not done."""
        self.listening = False
        """Whether somebody reads the events; else they count as done at once."""
        self._peeked = marks.events
        """Events up to here were taken in, perhaps ahead of the delivery."""
        self._messages_done = marks.messages
        self._events_done = marks.events
        self._again = marks.in_hand
        self._open: deque[tuple[int, int]] = deque()
        """First and last position of what has come and is not known to be done before everything behind it."""
        self._closed: set[int] = set()
        """Of those, the last positions of what is done."""
        self._ahead: dict[int, Map] = {}

    @property
    def cursor(self) -> int:
        """Everything up to here is done."""
        return self._open[0][0] - 1 if self._open else self.received

    def marks(self) -> Marks:
        """What is to be kept on disk now."""
        in_hand = self.hand["pos"] if self.hand is not None else self._again
        return Marks(self.epoch, self.cursor, self._messages_done, self._events_done, in_hand)

    # Coming in

    def begin(self, epoch: str, position: int) -> tuple[int, int] | None:
        """A connection's `welcome`. Returns the range of positions that are lost, if any; (0, 0) where it is another store."""
        if epoch != self.epoch:
            foreign = bool(self.epoch)
            self.epoch = epoch
            self._restart(position)
            return (0, 0) if foreign else None
        if position > self.received:
            lost = (self.received + 1, position)
            self._skip(position)
            return lost
        return None

    def _restart(self, position: int) -> None:
        self.received = self._messages_done = self._events_done = self._peeked = position
        self._again = 0
        self.hand = None
        self.messages.clear()
        self.events = deque(event for event in self.events if "pos" not in event)
        self._open.clear()
        self._closed.clear()
        self._ahead.clear()

    def _skip(self, position: int) -> None:
        self.received = position
        for pos in [pos for pos in self._ahead if pos <= position]:
            del self._ahead[pos]
        self._take_ahead()

    def lost_connection(self) -> None:
        """What was kept beyond a gap comes again."""
        self._ahead.clear()

    def offer(self, item: Map) -> bool:
        """An item has come, live or in a page; False where something before it is missing."""
        first, last = _range(item)
        if last <= self.received:
            return True
        if first > self.received + 1:
            if len(self._ahead) < MAX_AHEAD:
                self._ahead[last] = item
            return False
        self._accept(item, self.received + 1, last)
        self._take_ahead()
        return not self._ahead

    def missing(self) -> bool:
        """Whether there is a gap that `sync` after `received` is to fill."""
        return bool(self._ahead)

    def give_up_gap(self) -> tuple[int, int] | None:
        """The server has nothing for the gap: it is lost, and what lies behind it is shown."""
        if not self._ahead:
            return None
        first = min(_range(item)[0] for item in self._ahead.values())
        lost = (self.received + 1, first - 1)
        self._skip(first - 1)
        return lost

    def _take_ahead(self) -> None:
        while self._ahead:
            found = next((item for item in self._ahead.values() if _range(item)[0] <= self.received + 1), None)
            if found is None:
                return
            _, last = _range(found)
            del self._ahead[last]
            if last > self.received:
                self._accept(found, self.received + 1, last)

    def _accept(self, item: Map, first: int, last: int) -> None:
        self.received = last
        self._open.append((first, last))
        op = item["op"]
        if op == "msg" and last > self._messages_done:
            self.messages.append(item)
        elif op in EVENT_OPS and last > self._events_done and self.listening:
            if last > self._peeked:
                self._make_room()
                self.events.append(item)
        else:
            if op in EVENT_OPS:
                self._events_done = max(self._events_done, last)
            self._close(last)

    def _close(self, last: int) -> None:
        self._closed.add(last)
        while self._open and self._open[0][1] in self._closed:
            self._closed.discard(self._open.popleft()[1])

    # Messages

    def next_message(self) -> tuple[Map, bool] | None:
        """The message in hand, or else the next one, which is in hand from now on; and whether the app may have had it before."""
        if self.hand is None:
            if not self.messages:
                return None
            self.hand = self.messages.popleft()
        again = self._again == self.hand["pos"]
        return self.hand, again

    def handed_over(self) -> None:
        """The app has the message in hand: should it come a second time, then with `again`."""
        if self.hand is not None:
            self._again = self.hand["pos"]

    def done(self, position: int, epoch: str) -> bool:
        """The app has done every message up to `position` of the store `epoch`; False where that changes nothing."""
        if epoch != self.epoch or position <= self._messages_done:
            return False
        self._messages_done = position
        if self.hand is not None and self.hand["pos"] <= position:
            self._close(self.hand["pos"])
            self.hand = None
        while self.messages and self.messages[0]["pos"] <= position:
            self._close(self.messages.popleft()["pos"])
        if self._again <= position:
            self._again = 0
        return True

    # Events

    @property
    def scanned(self) -> int:
        """Everything up to here was looked at for events."""
        return max(self.received, self._peeked)

    def may_peek(self) -> bool:
        """Whether events may be taken in ahead of the delivery: somebody reads them, and there is room."""
        return self.listening and not self._ahead and len(self.events) < MAX_EVENTS

    def peek(self, item: object) -> bool:
        """Of an item that the delivery has not reached, an event is kept and the rest passed over. False: no more."""
        if not isinstance(item, dict) or not isinstance(item.get("op"), str) or not is_position(item.get("pos")):
            return False
        if not self.may_peek():
            return False
        position = item["pos"]
        if position > self.scanned:
            self._peeked = position
            if item["op"] in EVENT_OPS and position > self._events_done:
                self.events.append(item)
        return True

    def happened(self, event: Map) -> None:
        """An event without `pos`: kept for who reads, and the first to go where that is too slow."""
        if self.listening and self._make_room():
            self.events.append(event)

    def _make_room(self) -> bool:
        if len(self.events) < MAX_EVENTS:
            return True
        for index, event in enumerate(self.events):
            if "pos" not in event:
                del self.events[index]
                return True
        return False

    def next_event(self) -> Map | None:
        """The next event, without taking it."""
        return self.events[0] if self.events else None

    def take_event(self) -> Map:
        """Take the next event, which is done."""
        event = self.events.popleft()
        if "pos" in event:
            self._events_done = max(self._events_done, event["pos"])
            self._close(event["pos"])
        return event

    def stop_listening(self) -> None:
        """Nobody reads the events any more: they are done at once."""
        self.listening = False
        while self.events:
            self.take_event()


def _range(item: Map) -> tuple[int, int]:
    last: int = item["pos"]
    first = item.get("from") if item["op"] == "void" else last
    return (first if isinstance(first, int) and 0 < first <= last else last), last
