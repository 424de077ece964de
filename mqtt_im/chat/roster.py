"""All conversations of a user, kept true by what the client tells: messages, events, states."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mqtt_im.chat.timeline import Timeline
from mqtt_im.client import (
    Client,
    ClientError,
    Edited,
    Lost,
    Message,
    Offline,
    Outgoing,
    Presence,
    Reacted,
    Recalled,
    Receipt,
    Reported,
    State,
    Typing,
)

PAGE: Final = 50
_NONE: Final = State("connecting")


class Roster:
    """The conversations, and the one that is open. `changed` is called after each change, `notice` with what to say once."""

    def __init__(self, client: Client, changed: Callable[[], None], notice: Callable[[str], None]) -> None:
        self.client = client
        self.state: State = _NONE
        self.open: Timeline | None = None
        self.timelines: dict[str, Timeline] = {}
        self._changed = changed
        self._notice = notice
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: set[str] = set()

    # Life

    def start(self) -> None:
        """Follow the client from now on; it is connected."""
        for outgoing in self.client.outgoing():
            if outgoing.op == "send" and outgoing.to:
                self.timeline(outgoing.to).pending.append(outgoing)
                self.spawn(self._follow(outgoing, self.timeline(outgoing.to)))
        for work in (self._read_messages(), self._read_events(), self._read_states()):
            self.spawn(work)

    async def stop(self) -> None:
        """Follow nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something beside; what goes wrong is said."""

        async def told() -> None:
            try:
                await work
            except Offline:
                self._notice("there is no connection just now")
            except (ClientError, TimeoutError, OSError) as error:
                self._notice(str(error))
            self._changed()

        task = asyncio.get_running_loop().create_task(told())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What there is

    def timeline(self, name: str) -> Timeline:
        """The conversation with a user, of a group, or of this id."""
        conv = name if ":" in name else self.client.conversation_with(name)
        found = self.timelines.get(conv)
        if found is None:
            found = self.timelines[conv] = Timeline(conv, self.client.user)
        return found

    def ordered(self) -> list[Timeline]:
        """The latest activity first."""
        return sorted(self.timelines.values(), key=lambda one: (-one.latest, one.conv))

    def show(self, timeline: Timeline) -> None:
        """This conversation is open: it is read as far as it is known, and its history is there."""
        self.open = timeline
        timeline.unread = 0
        if not timeline.fetched:
            self.spawn(self.fetch(timeline))
        else:
            self.spawn(self._mark_read(timeline))
        self.watch(timeline)
        self._changed()

    async def fetch(self, timeline: Timeline) -> int:
        """The newest messages, or those before the oldest one that is known; how many came."""
        before = min(timeline.lines, default=None) if timeline.fetched else None
        page = await self.client.history(timeline.conv, before=before, limit=PAGE)
        for message in page:
            timeline.add(message)
        timeline.older = page.more
        timeline.fetched = True
        if timeline is self.open:
            await self._mark_read(timeline)
        return len(page)

    def watch(self, timeline: Timeline) -> None:
        """Whether the other one is online is told from now on."""
        peer = timeline.peer
        if peer is not None and peer != self.client.user and peer not in self._watched and self.state == "online":
            self._watched.add(peer)
            self.spawn(self._watch(peer))

    async def _watch(self, peer: str) -> None:
        with contextlib.suppress(ClientError):  # nobody shares a conversation yet, or it is hidden
            await self.client.watch(peer)

    async def send(self, timeline: Timeline, body: Any, **fields: Any) -> Outgoing:
        """A message, shown as pending until the server has it."""
        outgoing = await self.client.send(timeline.to, body, **fields)
        timeline.pending.append(outgoing)
        self.spawn(self._follow(outgoing, timeline))
        self._changed()
        return outgoing

    async def _follow(self, outgoing: Outgoing, timeline: Timeline) -> None:
        with contextlib.suppress(ClientError):
            await outgoing.sent()
        timeline.settle()
        if self.state != "online":
            return
        self.watch(timeline)

    async def _mark_read(self, timeline: Timeline) -> None:
        newest = max((seq for seq, line in timeline.lines.items() if not line.mine), default=0)
        if newest > timeline.marks.get(self.client.user, (0, 0))[1]:
            timeline.mark(Receipt(timeline.conv, self.client.user, newest, newest))
            await self.client.read(timeline.conv, newest)

    # What the client tells

    async def _read_messages(self) -> None:
        async with self.client.messages() as messages:
            async for message in messages:
                self._arrived(message)

    def _arrived(self, message: Message) -> None:
        timeline = self.timeline(message.conv)
        known = message.seq in timeline.lines
        line = timeline.add(message)
        if message.system is not None and message.system.get("event") in ("group.create", "group.rename"):
            timeline.title = str(message.system.get("name") or timeline.title)
        if timeline is self.open:
            self.spawn(self._mark_read(timeline))
        elif not line.mine and not known and line.system is None:
            timeline.unread += 1
        self._changed()

    async def _read_events(self) -> None:
        async with self.client.events() as events:
            async for event in events:
                match event:
                    case Edited() | Recalled() | Reacted():
                        self.timeline(event.conv).change(event)
                    case Receipt():
                        self.timeline(event.conv).mark(event)
                    case Typing():
                        self.timeline(event.conv).types(event.sender, event.on)
                    case Presence():
                        self.timeline(event.user).online = event.state == "online"
                    case Reported():
                        self._notice(f"{event.by} says of {event.conv} {event.seq}: {event.state}")
                    case Lost(why="epoch"):
                        self._notice("the server was restored from a backup; the newest messages may be missing")
                    case _:
                        continue
                self._changed()

    async def _read_states(self) -> None:
        async with self.client.states() as states:
            async for state in states:
                self.state = state
                self._changed()
                if state == "online":
                    self._watched.clear()
                    self.spawn(self._refresh())

    async def _refresh(self) -> None:
        """The list of conversations as the server has it."""
        page = await self.client.conversations(limit=PAGE)
        for found in page:
            timeline = self.timeline(found.conv)
            timeline.title = found.name or ""
            for user, marks in found.receipts.items():
                timeline.mark(Receipt(found.conv, user, marks.get("delivered"), marks.get("read")))
            if found.last is not None:
                timeline.latest = max(timeline.latest, found.last.ts)
            timeline.unread = 0 if timeline is self.open else found.unread
        if self.open is not None:
            self.watch(self.open)
            if not self.open.fetched:
                await self.fetch(self.open)
        self._changed()
