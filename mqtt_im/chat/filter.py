"""The chat without a terminal: each line of stdin is a message, and messages that come are printed, one line each."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from mqtt_im.chat.text import escaped, shown, system
from mqtt_im.client import Client, ClientError, Message, Outgoing, Refused, SendFailed


class WrongCallError(Exception):
    """The call can't be meant; its text says why."""


@dataclass
class Filter:
    """What is sent where, and how it is told. `text` is the one message where stdin is not read."""

    to: str | None = None
    as_json: bool = False
    text: str | None = None
    follow: bool = False
    timeout: float = 60.0
    out: TextIO = field(default_factory=lambda: sys.stdout)
    complain: TextIO = field(default_factory=lambda: sys.stderr)

    def check(self) -> None:
        """Raise `WrongCallError` where there is nobody to send to."""
        if self.text is not None and self.to is None:
            raise WrongCallError("--send needs --to")

    async def run(self, client: Client, lines: AsyncIterator[str] | None = None) -> int:
        """Send everything and print what comes; 0 when all is sent, 1 where something failed or timed out.

        Raises `WrongCallError`, and `ClientError` where the server does not take this user.
        """
        self.check()
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, stopped.set)
        failures = 0
        async with client:
            printing = asyncio.create_task(self._print(client))
            refused = asyncio.create_task(_refusal(client))
            sending = asyncio.create_task(self._send_all(client, lines))
            stopping = asyncio.create_task(stopped.wait())
            try:
                await asyncio.wait({sending, refused, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if refused.done():
                    raise refused.result()
                if sending.done():
                    failures = sending.result()
                    if self.follow and not stopped.is_set():
                        await asyncio.wait({refused, stopping}, return_when=asyncio.FIRST_COMPLETED)
                        if refused.done():
                            raise refused.result()
                else:
                    return 0 if self.follow else 1
            finally:
                for task in (printing, refused, sending, stopping):
                    task.cancel()
                await asyncio.gather(printing, refused, sending, stopping, return_exceptions=True)
        return 1 if failures else 0

    async def _send_all(self, client: Client, lines: AsyncIterator[str] | None) -> int:
        """How many failed."""
        waiting: list[Outgoing] = []
        failures = 0
        if self.text is not None:
            assert self.to is not None
            waiting.append(await client.send(self.to, self.text))
        else:
            count = 0
            async for line in lines if lines is not None else _stdin():
                count += 1
                if not line.strip():
                    continue
                try:
                    to, body, fields = self._meant(line)
                    waiting.append(await client.send(to, body, **fields))
                except (ValueError, TypeError, ClientError) as error:
                    failures += 1
                    print(f"mqtt-im: line {count}: {error}", file=self.complain, flush=True)
        return failures + await self._all_sent(waiting)

    async def _all_sent(self, waiting: list[Outgoing]) -> int:
        failures = 0
        try:
            async with asyncio.timeout(self.timeout):
                for outgoing in waiting:
                    try:
                        await outgoing.sent()
                    except SendFailed as error:
                        failures += 1
                        print(f"mqtt-im: not sent to {outgoing.to}: {error}", file=self.complain, flush=True)
        except TimeoutError:
            left = sum(1 for outgoing in waiting if outgoing.state == "queued")
            failures += left
            print(
                f"mqtt-im: {left} not sent within {self.timeout:g} s; kept, and sent the next time",
                file=self.complain,
                flush=True,
            )
        return failures

    def _meant(self, line: str) -> tuple[str, Any, dict[str, Any]]:
        """To whom, the body, and further fields. Raises `ValueError`, `WrongCallError`."""
        if not self.as_json:
            if self.to is None:
                raise WrongCallError("--to is missing: to whom is this?")
            return self.to, line, {}
        try:
            given = json.loads(line)
        except ValueError as error:
            raise ValueError(f"no JSON: {error}") from None
        if not isinstance(given, dict):
            raise ValueError("expected one map (a JSON object) with the fields of send")
        given.pop("op", None)
        to = given.pop("to", self.to)
        if not isinstance(to, str):
            raise ValueError("to: missing, and no --to is given")
        if "body" not in given:
            raise ValueError("body: missing")
        return to, given.pop("body"), given

    async def _print(self, client: Client) -> None:
        async with client.messages() as messages:
            async for message in messages:
                print(self._line(message), file=self.out, flush=True)

    def _line(self, message: Message) -> str:
        if self.as_json:
            return json.dumps(message.raw, ensure_ascii=False, separators=(",", ":"), default=_as_json)
        if message.system is not None:
            return f"* {system(message.system, message.sender)}"
        return f"{escaped(message.sender)}: {'(recalled)' if message.recalled else shown(message.body)}"


async def _refusal(client: Client) -> ClientError:
    async with client.states() as states:
        async for state in states:
            if state == "refused":
                return Refused(state.reason or "the server does not take this user")
    return ClientError("the client was closed")


async def _stdin() -> AsyncIterator[str]:
    """The lines of stdin without their ends; a slow writer stops nothing."""
    if not _can_be_awaited(sys.stdin.fileno()):
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            yield _text(line)
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        yield _text(line)


def _can_be_awaited(number: int) -> bool:
    """Whether the loop tells when there is something to read; not of files, nor of devices such as /dev/null."""
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def _as_json(value: Any) -> Any:
    """Binary in the protocol's JSON form."""
    if isinstance(value, bytes):
        return {"$bin": base64.b64encode(value).decode()}
    return str(value)
