"""The packets of one connection: what was sent and has no acknowledgement yet, and what must wait for that."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from mqtt_im.client.payload import Codec, Map, deflated, encode

from .effects import Effect, Publish, Subscribe
from .entries import Entry

ANY: Final = 65_535


class Packets:
    """Gives each packet a token, under which its acknowledgement comes back."""

    def __init__(self, up: str, codec: Codec) -> None:
        self.up = up
        self.codec = codec
        self._tokens = 0
        self._at_once = ANY
        self._sent: dict[int, tuple[str, str]] = {}
        """PUBLISHes without PUBACK: token → (op, id)."""
        self._newest: dict[str, int] = {}
        """Of requests with an id that have no PUBACK: under which token they were sent last."""
        self._told: set[int] = set()
        """PUBLISHes without PUBACK whose `error` has come: MQTT 5's reason code says the same once more."""
        self._owed: dict[str, int] = {}
        """Of requests whose refusal a reason code has told: how many `error`s are still to come, which say the same."""
        self._held: deque[tuple[Publish, tuple[str, str]]] = deque()
        self._subscribing: dict[int, tuple[str, ...]] = {}

    def begin(self) -> None:
        """A new connection."""
        self._at_once = ANY
        self._sent.clear()
        self._newest.clear()
        self._told.clear()
        self._owed.clear()
        self._held.clear()
        self._subscribing.clear()

    def bound(self, at_once: int) -> None:
        """On this connection so many PUBLISHes may be without PUBACK (MQTT 5, Receive Maximum)."""
        self._at_once = at_once

    def name(self, prefix: str) -> str:
        """An id for a request of our own."""
        self._tokens += 1
        return f"{prefix}{self._tokens}"

    def request(self, request: Map, qos: int = 1) -> list[Effect]:
        """PUBLISH a request."""
        return self._publish(deflated(encode(request, self.codec)), qos, request["op"], request.get("id", ""))

    def change(self, entry: Entry, now: float) -> list[Effect]:
        """PUBLISH what stands in the outbox."""
        return self._publish(entry.payload(entry.n, now, zipped=True), 1, entry.op, entry.id)

    def _publish(self, payload: bytes, qos: int, op: str, request_id: str) -> list[Effect]:
        self._tokens += 1
        publish = Publish(self._tokens, self.up, payload, qos)
        if not qos:
            return [publish]
        if self._held or len(self._sent) >= self._at_once:
            self._held.append((publish, (op, request_id)))
            return []
        self._leaves(publish, (op, request_id))
        return [publish]

    def _leaves(self, publish: Publish, named: tuple[str, str]) -> None:
        self._sent[publish.token] = named
        if named[1]:
            self._newest[named[1]] = publish.token

    def subscribe(self, filters: tuple[str, ...]) -> list[Effect]:
        """SUBSCRIBE."""
        self._tokens += 1
        self._subscribing[self._tokens] = filters
        return [Subscribe(self._tokens, filters)]

    def is_news(self, request_id: str) -> bool:
        """An `error` has come; False where a reason code has told it before, of a packet that may have been sent again since."""
        if request_id in self._owed:
            self._owed[request_id] -= 1
            if not self._owed[request_id]:
                del self._owed[request_id]
            return False
        if (token := self._newest.get(request_id)) is not None:
            self._told.add(token)
        return True

    def puback(self, token: int, code: int = 0) -> tuple[str, str, bool, list[Effect]]:
        """A PUBACK: op and id of its request (empty where there is none), whether its code is news, and what leaves now."""
        op, request_id = self._sent.pop(token, ("", ""))
        news = token not in self._told
        self._told.discard(token)
        if code >= 0x80 and news and request_id:
            self._owed[request_id] = self._owed.get(request_id, 0) + 1
        if self._newest.get(request_id) == token:
            del self._newest[request_id]
        leaving: list[Effect] = []
        while self._held and len(self._sent) < self._at_once:
            publish, named = self._held.popleft()
            self._leaves(publish, named)
            leaving.append(publish)
        return op, request_id, news, leaving

    def suback(self, token: int, codes: Iterable[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A SUBACK: its filters, and those among them that were refused."""
        filters = self._subscribing.pop(token, ())
        return filters, tuple(name for name, code in zip(filters, codes, strict=False) if code >= 0x80)


class Unanswered:
    """Changes that have their PUBACK and not their answer: they are sent again, since a repeat is always answered.

    That happens where the answer is an item that does not come, because the delivery pauses in front of what the app has not
    done, and where a broker stands in between.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def acknowledged(self, request_id: str, now: float, *, paused: bool) -> None:
        """Its PUBACK has come."""
        times = self._times.get(request_id, 0)
        self._due[request_id] = now + (_PAUSED_S if paused else min(_FIRST_S * 2.0**times, _CAP_S))

    def forget(self, request_id: str) -> None:
        """It has its answer."""
        self._due.pop(request_id, None)
        self._times.pop(request_id, None)

    def clear(self) -> None:
        """The connection is gone."""
        self._due.clear()
        self._times.clear()

    def due(self) -> float:
        """When the first is to be sent again."""
        return min(self._due.values(), default=math.inf)

    def take(self, now: float) -> list[str]:
        """Those to send again now, in the order in which they were acknowledged."""
        found = [request_id for request_id, due in self._due.items() if due <= now]
        for request_id in found:
            del self._due[request_id]
            self._times[request_id] = self._times.get(request_id, 0) + 1
        return found


_PAUSED_S: Final = 0.05
_FIRST_S: Final = 2.0
_CAP_S: Final = 60.0
