"""The two readers of the inbox, as an app has them: messages one at a time, events as they come."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, Final

from . import clock
from .engine import Engine
from .events import Event, event_of
from .iterators import Bell, Reader
from .message import Message

_GRACE_S: Final = 2.0
"""So long after the last reader of events has ended, they are still kept for the next one."""


class Reading:
    """Lives as long as a client is open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox = engine.session.inbox
        self._closed = False
        self._messages_bell = Bell()
        self._events_bell = Bell()
        self._messages_reader: weakref.ref[Reader[Message]] | None = None
        self._event_readers = 0
        self._not_listening: asyncio.TimerHandle | None = None
        self._event_in_hand: dict[str, Any] | None = None
        """It counts as done on disk, and was not handed over yet."""

    def news(self) -> None:
        """There may be something to read."""
        self._messages_bell.ring()
        self._events_bell.ring()

    def close(self) -> None:
        """Every reader ends."""
        self._closed = True
        if self._not_listening is not None:
            self._not_listening.cancel()
        self.news()

    # Messages

    def messages(self) -> Reader[Message]:
        """See `Client.messages`."""
        former = None if self._messages_reader is None else self._messages_reader()
        if former is not None:
            raise RuntimeError("messages() has an iterator already; end that one first (`aclose()`)")
        handed: list[Message] = []

        async def take() -> Message:
            changed = bool(handed) and self._finish(handed.pop())
            message = await self._next_message(changed)
            handed.append(message)
            return message

        def ended() -> None:
            handed.clear()
            self._messages_reader = None

        reader = Reader(take, ended)
        self._messages_reader = weakref.ref(reader)
        return reader

    async def _next_message(self, changed: bool) -> Message:
        inbox = self._inbox
        while not self._closed:
            found = inbox.next_message()
            if found is not None:
                item, again = found
                # The disk knows it before the app has it: what is done stays done, and what is in hand comes again.
                await asyncio.shield(self._engine.save())
                changed = False
                if inbox.hand is item and not self._closed:
                    inbox.handed_over()
                    return Message(item, again=again, epoch=inbox.epoch, done=self._done)
            elif changed:
                await asyncio.shield(self._engine.save())
                changed = False
            else:
                await self._messages_bell.wait()
        raise StopAsyncIteration

    def _finish(self, message: Message) -> bool:
        return message.pos is not None and self._inbox.done(message.pos, message.epoch)

    async def _done(self, message: Message) -> None:
        if not self._closed and self._finish(message):
            await asyncio.shield(self._engine.save())

    # Events

    def events(self) -> Reader[Event]:
        """See `Client.events`."""
        self._event_readers += 1
        self._inbox.listening = True
        if self._not_listening is not None:
            self._not_listening.cancel()
            self._not_listening = None
        self._engine.apply(self._engine.session.progress(clock.now()))  # there may be events behind unread messages
        return Reader(self._next_event, self._event_reader_ended)

    async def _next_event(self) -> Event:
        while not self._closed:
            if self._event_in_hand is None:
                if self._inbox.next_event() is None:
                    await self._events_bell.wait()
                    continue
                self._event_in_hand = self._inbox.take_event()
                if "pos" in self._event_in_hand:
                    await asyncio.shield(self._engine.save())
            event, self._event_in_hand = event_of(self._event_in_hand), None
            if event is not None:
                return event
        raise StopAsyncIteration

    def _event_reader_ended(self) -> None:
        self._event_readers -= 1
        if self._event_readers == 0 and not self._closed:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # the loop is gone, and everything with it
                return
            self._not_listening = loop.call_later(_GRACE_S, self._stop_listening)

    def _stop_listening(self) -> None:
        self._not_listening = None
        self._event_in_hand = None
        self._inbox.stop_listening()
        self._engine.apply(self._engine.session.progress(clock.now()))
