"""What begins with `/` in the chat. A command is a name, what it takes, what it does, and one line of help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mqtt_im.chat.roster import Roster
from mqtt_im.chat.text import escaped, shown
from mqtt_im.chat.timeline import Line, Timeline
from mqtt_im.client import Outgoing


class MistakeError(Exception):
    """A command that can't be meant; its text says what to type."""


@dataclass(frozen=True)
class Session:
    """What commands work with: `say` shows a line that is no message, `leave` ends the chat."""

    roster: Roster
    say: Callable[[str], None]
    leave: Callable[[], None]

    @property
    def here(self) -> Timeline:
        """The open conversation. Raises `MistakeError`."""
        if self.roster.open is None:
            raise MistakeError("no conversation is open: /to NAME opens one")
        return self.roster.open


Action = Callable[[Session, str], Awaitable[None]]


@dataclass(frozen=True)
class Command:
    """`takes` is shown in the help, as are its `words`."""

    name: str
    takes: str
    words: str
    action: Action


async def perform(session: Session, line: str) -> None:
    """Do what a line that begins with `/` says. Raises `MistakeError`, and what the client raises."""
    name, _, rest = line[1:].partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        near = [known for known in COMMANDS if known.startswith(name.lower()[:2])]
        hint = f"; did you mean /{near[0]}?" if near else ""
        raise MistakeError(f"there is no /{escaped(name)}{hint} /help lists all")
    await command.action(session, rest.strip())


def _words(rest: str, least: int, usage: str) -> list[str]:
    words = rest.split()
    if len(words) < least:
        raise MistakeError(f"usage: {usage}")
    return words


def _group(session: Session) -> str:
    if not session.here.conv.startswith("#"):
        raise MistakeError("this is no group: open one with /to #NAME, or make one with /group")
    return session.here.conv


def _line(session: Session, word: str) -> Line:
    line = session.here.lines.get(int(word)) if word.isdigit() else None
    if line is None:
        raise MistakeError(f"there is no message {escaped(word)} here; the numbers stand before the messages")
    return line


def _own(session: Session, rest: str) -> tuple[Line, str]:
    """The message that is meant, the last one of one's own without a number, and what is left of the line."""
    word, _, left = rest.partition(" ")
    if word.isdigit() and int(word) in session.here.lines:
        return _line(session, word), left.strip()
    mine = [line for line in session.here.ordered() if line.mine and not line.recalled]
    if not mine:
        raise MistakeError("there is no message of yours here")
    return mine[-1], rest


def _path(text: str) -> Path:
    return Path(text).expanduser()


async def _told(session: Session, outgoing: Outgoing, words: str) -> None:
    """Say it once the server has done it."""

    async def wait() -> None:
        await outgoing.sent()
        left_out = (outgoing.reply or {}).get("left_out")
        session.say(words + (f"; left out, since they blocked you: {', '.join(left_out)}" if left_out else ""))

    session.roster.spawn(wait())


async def _help(session: Session, _: str) -> None:
    for command in COMMANDS.values():
        session.say(f"/{command.name} {command.takes}".ljust(30) + command.words)
    session.say("Alt-↑ Alt-↓ change the conversation, PageUp PageDown scroll, Tab completes, Ctrl-D leaves.")


async def _to(session: Session, rest: str) -> None:
    (name, *_) = _words(rest, 1, "/to USER or /to #GROUP")
    session.roster.show(session.roster.timeline(name))


async def _reply(session: Session, rest: str) -> None:
    number, _, text = rest.partition(" ")
    if not text.strip():
        raise MistakeError("usage: /reply NUMBER TEXT")
    await session.roster.send(session.here, text.strip(), reply_to=_line(session, number).seq)


async def _edit(session: Session, rest: str) -> None:
    line, text = _own(session, rest)
    if not text:
        raise MistakeError("usage: /edit [NUMBER] TEXT")
    await session.roster.client.edit(session.here.conv, line.seq, text)


async def _recall(session: Session, rest: str) -> None:
    line, _ = _own(session, rest)
    await session.roster.client.recall(session.here.conv, line.seq)


async def _react(session: Session, rest: str) -> None:
    number, *emoji = _words(rest, 1, "/react NUMBER EMOJI")
    await session.roster.client.react(session.here.conv, _line(session, number).seq, "".join(emoji))


async def _search(session: Session, rest: str) -> None:
    if not rest:
        raise MistakeError("usage: /search WORDS")

    async def look() -> None:
        found = await session.roster.client.search(rest, limit=20)
        for message in reversed(found):
            session.say(f"{message.conv} {message.seq} {escaped(message.sender)}: {shown(message.body)}")
        if not found:
            session.say("nothing was found")

    session.roster.spawn(look())


async def _new_group(session: Session, rest: str) -> None:
    name, *members = _words(rest, 1, "/group NAME MEMBER…")
    made = await session.roster.client.group_create(members=members, name=name)

    async def wait() -> None:
        await made.sent()
        assert made.group is not None
        timeline = session.roster.timeline(made.group)
        timeline.title = name
        session.roster.show(timeline)

    session.roster.spawn(wait())


async def _add(session: Session, rest: str) -> None:
    members = _words(rest, 1, "/add MEMBER…")
    await _told(session, await session.roster.client.group_add(_group(session), members), f"added {', '.join(members)}")


async def _remove(session: Session, rest: str) -> None:
    members = _words(rest, 1, "/remove MEMBER…")
    await _told(session, await session.roster.client.group_remove(_group(session), members), f"removed {', '.join(members)}")


async def _role(session: Session, rest: str) -> None:
    user, role, *_ = _words(rest, 2, "/role USER owner|admin|member")
    if role not in ("owner", "admin", "member"):
        raise MistakeError("a role is owner, admin or member")
    changed = await session.roster.client.group_role(_group(session), user, role)  # type: ignore[arg-type]
    await _told(session, changed, f"{user} is {role} now")


async def _rename(session: Session, rest: str) -> None:
    if not rest:
        raise MistakeError("usage: /rename NAME")
    await _told(session, await session.roster.client.group_rename(_group(session), rest), f"renamed to {rest}")


async def _leave(session: Session, _: str) -> None:
    await _told(session, await session.roster.client.group_leave(_group(session)), "you left")


async def _info(session: Session, _: str) -> None:
    group = _group(session)

    async def look() -> None:
        info = await session.roster.client.group_info(group)
        session.say(f"{escaped(info.get('name') or group)}, {info.get('count', len(info['members']))} members:")
        session.say(
            ", ".join(f"{member['user']} ({member['role']})" for member in info["members"]) + (" …" if info.get("more") else "")
        )

    session.roster.spawn(look())


async def _block(session: Session, rest: str) -> None:
    user = rest or session.here.peer or ""
    await _told(session, await session.roster.client.block(user), f"{user} is blocked")


async def _unblock(session: Session, rest: str) -> None:
    user = rest or session.here.peer or ""
    await _told(session, await session.roster.client.unblock(user), f"{user} is not blocked any more")


async def _mute(session: Session, rest: str) -> None:
    hours = float(rest) if rest.replace(".", "", 1).isdigit() else 8.0
    until = int((time.time() + hours * 3600) * 1000)
    await _told(session, await session.roster.client.mute(session.here.conv, until), f"muted for {hours:g} hours")


async def _unmute(session: Session, _: str) -> None:
    await _told(session, await session.roster.client.mute(session.here.conv, 0), "not muted any more")


async def _devices(session: Session, _: str) -> None:
    async def look() -> None:
        found = await session.roster.client.devices()
        for device in found["devices"]:
            mine = " (this one)" if device["device"] == session.roster.client.device else ""
            session.say(
                f"{device['device']}{mine}: {'online' if device['online'] else 'offline'}, has read up to {device['pos']}"
            )

    session.roster.spawn(look())


async def _forget(session: Session, rest: str) -> None:
    (device, *_) = _words(rest, 1, "/forget DEVICE")
    await _told(session, await session.roster.client.device_forget(device), f"{device} is forgotten")


async def _file(session: Session, rest: str) -> None:
    if not rest:
        raise MistakeError("usage: /file PATH")
    path = _path(rest)
    here = session.here
    if not await asyncio.to_thread(path.is_file):
        raise MistakeError(f"{escaped(str(path))} is no file")

    async def upload() -> None:
        file = await session.roster.client.upload(path)
        await session.roster.send(here, path.name, files=[file])

    session.say(f"uploading {escaped(path.name)} …")
    session.roster.spawn(upload())


async def _save(session: Session, rest: str) -> None:
    number, *where = _words(rest, 1, "/save NUMBER [PATH]")
    files = _line(session, number).files
    if not files:
        raise MistakeError(f"message {number} carries no file")

    async def download() -> None:
        for file in files:
            # Nobody else's name leads out of this folder.
            target = _path(where[0]) if where else Path(Path(str(file["name"])).name or "file")
            if await asyncio.to_thread(target.exists):
                session.say(f"{escaped(str(target))} exists already: /save {number} PATH")
                continue
            await session.roster.client.download(file["id"], target)
            session.say(f"saved {escaped(str(target))}")

    session.roster.spawn(download())


async def _cancel(session: Session, _: str) -> None:
    waiting = [one for one in session.here.pending if one.state == "queued"]
    if not waiting:
        raise MistakeError("nothing waits to be sent here")
    session.say("taken back" if await waiting[-1].cancel() else "it is on its way already")
    session.here.pending = [one for one in session.here.pending if one.error is None or one.error.code != "cancelled"]


async def _resend(session: Session, _: str) -> None:
    failed = [one for one in session.here.pending if one.state == "failed"]
    if not failed:
        raise MistakeError("nothing has failed here")
    for outgoing in failed:
        session.here.pending.remove(outgoing)
        fields: dict[str, Any] = {name: value for name, value in outgoing.entry.fields.items() if name in ("reply_to", "files")}
        await session.roster.send(session.here, outgoing.body, **fields)


async def _quit(session: Session, _: str) -> None:
    session.leave()


COMMANDS: Final[dict[str, Command]] = {
    command.name: command
    for command in (
        Command("help", "", "this list", _help),
        Command("to", "NAME", "open the conversation with a user or a #group", _to),
        Command("reply", "NUMBER TEXT", "answer a message", _reply),
        Command("edit", "[NUMBER] TEXT", "a new text for your message, the last one without a number", _edit),
        Command("recall", "[NUMBER]", "take your message back", _recall),
        Command("react", "NUMBER EMOJI", "react to a message; without an emoji, take it away", _react),
        Command("search", "WORDS", "look for messages", _search),
        Command("group", "NAME MEMBER…", "make a group", _new_group),
        Command("add", "MEMBER…", "add members to this group", _add),
        Command("remove", "MEMBER…", "remove members", _remove),
        Command("role", "USER ROLE", "make a member owner, admin or member", _role),
        Command("rename", "NAME", "name this group", _rename),
        Command("leave", "", "leave this group", _leave),
        Command("info", "", "who is in this group", _info),
        Command("file", "PATH", "send a file", _file),
        Command("save", "NUMBER [PATH]", "save a message's files", _save),
        Command("mute", "[HOURS]", "no pushes for this conversation", _mute),
        Command("unmute", "", "pushes again", _unmute),
        Command("block", "[USER]", "take no direct messages from a user", _block),
        Command("unblock", "[USER]", "take them again", _unblock),
        Command("devices", "", "your devices", _devices),
        Command("forget", "DEVICE", "forget a device that will not come back", _forget),
        Command("cancel", "", "take back what is not sent yet", _cancel),
        Command("resend", "", "try again what has failed", _resend),
        Command("quit", "", "leave the chat; what is unsent is kept", _quit),
    )
}
