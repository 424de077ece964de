"""How the chat looks: conversations at the left, messages, what is typed; and which keys there are."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from prompt_toolkit.application import Application, get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.data_structures import Point
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    ConditionalContainer,
    Float,
    FloatContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    VSplit,
    Window,
)
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.mouse_events import MouseEvent, MouseEventType
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import TextArea

from mqtt_im.chat.commands import COMMANDS
from mqtt_im.chat.roster import Roster
from mqtt_im.chat.text import escaped, shown
from mqtt_im.chat.timeline import Line, Timeline

SIDE: Final = 24
NARROW: Final = 70
"""Below so many columns the list of conversations gives way."""
MARKS: Final = {"queued": "…", "sent": "✓", "delivered": "✓✓", "read": "✓✓", "failed": "✗"}

STYLE: Final = Style.from_dict(
    {
        "bar": "reverse",
        "side.open": "reverse",
        "side.unread": "bold ansigreen",
        "quiet": "ansibrightblack",
        "number": "ansibrightblack",
        "mine": "bold ansicyan",
        "other": "bold ansiyellow",
        "system": "italic ansibrightblack",
        "notice": "ansimagenta",
        "read": "ansigreen",
        "failed": "bold ansired",
        "online": "ansigreen",
        "quote": "italic ansibrightblack",
    }
)


class Owner(Protocol):
    """What the screen tells of keys."""

    def typed(self, text: str) -> None:
        """A line was entered."""

    def typing(self, text: str) -> None:
        """The line has changed."""

    def scrolled_to_top(self) -> None:
        """Older messages are wanted."""


class Words(Completer):
    """Completes commands, and names after them."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def get_completions(self, document: Document, _event: CompleteEvent) -> Iterable[Completion]:
        """See `Completer`."""
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        name, blank, rest = text[1:].partition(" ")
        if not blank:
            for command in COMMANDS.values():
                if command.name.startswith(name):
                    yield Completion(
                        command.name, -len(name), display=f"/{command.name} {command.takes}", display_meta=command.words
                    )
            return
        last = rest.rpartition(" ")[2]
        known = {timeline.to for timeline in self._roster.timelines.values()}
        if self._roster.open is not None:
            known |= {line.sender for line in self._roster.open.lines.values()}
        for word in sorted(known):
            if last and word.startswith(last):
                yield Completion(word, -len(last))


class Screen:
    """The whole terminal."""

    def __init__(self, roster: Roster, owner: Owner, **application: Any) -> None:
        """`application` goes to prompt-toolkit's."""
        self._roster = roster
        self._owner = owner
        self._back = 0
        """Lines that the view is scrolled up."""
        self._notices: list[tuple[int, str]] = []
        """What was said, and behind which message."""
        self._rows: list[StyleAndTextTuples] = []
        self.input = TextArea(
            height=1,
            prompt=self._prompt,
            multiline=False,
            wrap_lines=False,
            completer=Words(roster),
            complete_while_typing=True,
            history=InMemoryHistory(),
            accept_handler=self._accept,
        )
        self.input.buffer.on_text_changed += lambda buffer: owner.typing(buffer.text)
        self._body = Window(
            FormattedTextControl(self._timeline, get_cursor_position=self._cursor, show_cursor=False), wrap_lines=True
        )
        side = ConditionalContainer(
            VSplit(
                [
                    Window(FormattedTextControl(self._conversations), width=SIDE),
                    Window(width=1, char="│", style="class:quiet"),
                ]
            ),
            Condition(lambda: get_app().output.get_size().columns >= NARROW),
        )
        root = HSplit(
            [
                Window(FormattedTextControl(self._title), height=1, style="class:bar"),
                VSplit([side, self._body]),
                Window(FormattedTextControl(self._status), height=1, style="class:quiet"),
                self.input,
            ]
        )
        floating = FloatContainer(root, [Float(CompletionsMenu(max_height=8), xcursor=True, ycursor=True)])
        # NO_COLOR: https://no-color.org
        depth = ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None
        self.application: Application[None] = Application(
            Layout(floating, focused_element=self.input),
            key_bindings=self._keys(),
            style=STYLE,
            color_depth=depth,
            full_screen=True,
            mouse_support=True,
            refresh_interval=1.0,  # somebody who stopped typing is not told
            **application,
        )

    def redraw(self) -> None:
        """Something has changed."""
        self.application.invalidate()

    def say(self, text: str) -> None:
        """Show a line that is no message."""
        head = self._roster.open.head if self._roster.open is not None else 0
        self._notices.append((head, escaped(text)))
        del self._notices[:-200]
        self._back = 0
        self.redraw()

    def forget_notices(self) -> None:
        """They belong to the conversation that was open."""
        self._notices.clear()
        self._back = 0

    # Keys

    def _accept(self, buffer: Any) -> bool:
        text = buffer.text
        self._back = 0
        self._owner.typed(text)
        return False

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def leave(event: KeyPressEvent) -> None:
            event.app.exit()

        def clear(event: KeyPressEvent) -> None:
            if self.input.text:
                self.input.buffer.reset()
            else:
                event.app.exit()

        keys.add("c-d")(leave)
        keys.add("c-c")(clear)
        keys.add("pageup")(lambda _: self._scroll(1))
        keys.add("pagedown")(lambda _: self._scroll(-1))
        keys.add("escape", "up")(lambda _: self._switch(-1))
        keys.add("escape", "down")(lambda _: self._switch(1))
        keys.add("c-p")(lambda _: self._switch(-1))
        keys.add("c-n")(lambda _: self._switch(1))
        return keys

    def _height(self) -> int:
        info = self._body.render_info
        return max(1, info.window_height - 2) if info is not None else 10

    def _scroll(self, direction: int) -> None:
        last = max(0, len(self._rows) - 1)
        self._back = min(max(0, self._back + direction * self._height()), last)
        if self._back == last:
            self._owner.scrolled_to_top()

    def _switch(self, step: int) -> None:
        timelines = self._roster.ordered()
        if not timelines:
            return
        place = timelines.index(self._roster.open) + step if self._roster.open in timelines else 0
        self.forget_notices()
        self._roster.show(timelines[place % len(timelines)])

    def _cursor(self) -> Point:
        return Point(0, max(0, len(self._rows) - 1 - self._back))

    # What is shown

    def _prompt(self) -> StyleAndTextTuples:
        return [("class:mine", f"{escaped(self._roster.open.to) if self._roster.open is not None else ''}> ")]

    def _title(self) -> StyleAndTextTuples:
        timeline = self._roster.open
        if timeline is None:
            return [("", " MQTT-IM   /to NAME opens a conversation, /help lists what you can do ")]
        told = f" {_name(timeline)}"
        if timeline.online is not None:
            told += "  ● online" if timeline.online else "  ○ offline"
        return [("", told)]

    def _status(self) -> StyleAndTextTuples:
        state = self._roster.state
        told = f" {escaped(self._roster.client.user)}: {state}"
        if state == "waiting" and state.retry_at is not None:
            told += f", trying again in {max(0, round(state.retry_at - time.time()))} s"
        if state == "refused":
            told += f": {escaped(state.reason or '')}"
        waiting = sum(1 for one in self._roster.client.outgoing() if one.state == "queued")
        if waiting:
            told += f" · {waiting} unsent"
        parts: StyleAndTextTuples = [("class:online" if state == "online" else "class:failed", told)]
        if self._roster.open is not None and self._roster.open.typing:
            parts.append(("class:notice", f"   {escaped(', '.join(self._roster.open.typing))} typing …"))
        if self._back:
            parts.append(("class:notice", "   ↓ newer messages below (PageDown)"))
        return parts

    def _conversations(self) -> StyleAndTextTuples:
        parts: StyleAndTextTuples = []
        for timeline in self._roster.ordered():
            opened = timeline is self._roster.open
            style = "class:side.open" if opened else "class:side.unread" if timeline.unread else ""
            count = f" {timeline.unread}" if timeline.unread else ""
            name = _cut(_name(timeline), SIDE - 2 - len(count))
            dot = "●" if timeline.online else " "
            parts.append((style, f"{dot}{name}{count}".ljust(SIDE), self._clicked(timeline)))
            parts.append(("", "\n"))
        return parts

    def _clicked(self, timeline: Timeline) -> Callable[[MouseEvent], object]:
        def clicked(event: MouseEvent) -> object:
            if event.event_type is MouseEventType.MOUSE_UP:
                self.forget_notices()
                self._roster.show(timeline)
                return None
            return NotImplemented

        return clicked

    def _timeline(self) -> StyleAndTextTuples:
        rows: list[StyleAndTextTuples] = []
        timeline = self._roster.open
        notices = list(self._notices)
        if timeline is not None:
            if timeline.fetched and not timeline.older:
                rows.append([("class:quiet", "— the beginning —")])
            day = ""
            for line in timeline.ordered():
                while notices and notices[0][0] < line.seq:
                    rows.append([("class:notice", notices.pop(0)[1])])
                date = _date(line.ts)
                if date != day:
                    day = date
                    rows.append([("class:quiet", f"— {date} —")])
                rows += self._message(timeline, line)
            for outgoing in timeline.pending:
                rows.append(
                    [
                        ("class:number", "      "),
                        ("class:mine", f"{escaped(self._roster.client.user)} "),
                        ("", shown(outgoing.body)),
                        ("class:failed" if outgoing.state == "failed" else "class:quiet", f" {MARKS[outgoing.state]}"),
                        ("class:failed", f" {escaped(str(outgoing.error))}" if outgoing.error is not None else ""),
                    ]
                )
        rows += [[("class:notice", text)] for _, text in notices]
        self._rows = rows
        parts: StyleAndTextTuples = []
        for row in rows:
            parts += row
            parts.append(("", "\n"))
        return parts[:-1]

    def _message(self, timeline: Timeline, line: Line) -> list[StyleAndTextTuples]:
        number = ("class:number", f"{line.seq:>5} ")
        if line.system is not None:
            return [[number, ("class:system", f"* {line.text}")]]
        rows: list[StyleAndTextTuples] = []
        if line.reply_to is not None:
            answered = timeline.lines.get(line.reply_to)
            quote = f"{escaped(answered.sender)}: {answered.text.splitlines()[0] if answered.text else ''}" if answered else "…"
            rows.append([("class:quote", f"      ╭ {line.reply_to} {quote}")])
        first, *more = line.text.split("\n")
        parts: StyleAndTextTuples = [
            number,
            ("class:mine" if line.mine else "class:other", f"{escaped(line.sender)} "),
            ("class:system" if line.recalled else "", first),
        ]
        rows.append(parts)
        rows += [[("", f"      {text}")] for text in more]
        end = rows[-1]
        if line.edited and not line.recalled:
            end.append(("class:quiet", " (edited)"))
        for file in line.files:
            end.append(
                ("class:notice", f" [{escaped(str(file.get('name', '')))}, {file.get('size', 0)} bytes: /save {line.seq}]")
            )
        for emoji, users in line.reactions.items():
            end.append(("class:quiet", f" {escaped(emoji)}{len(users) if len(users) > 1 else ''}"))
        if line.mine:
            state = timeline.state_of(line.seq)
            end.append(("class:read" if state == "read" else "class:quiet", f" {MARKS[state]}"))
        end.append(("class:quiet", f" {_time(line.ts)}"))
        return rows


def _name(timeline: Timeline) -> str:
    if timeline.title:
        return escaped(f"{timeline.title} ({timeline.conv})" if timeline.title != timeline.conv else timeline.title)
    return escaped(timeline.to if timeline.peer != timeline.me else "notes to yourself")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _time(ts: int) -> str:
    return datetime.datetime.fromtimestamp(ts / 1000).strftime("%H:%M") if ts else ""


def _date(ts: int) -> str:
    return datetime.datetime.fromtimestamp(ts / 1000).strftime("%A, %d %B %Y") if ts else ""
