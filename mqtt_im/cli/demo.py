"""`mqtt-im demo`: the whole story in one terminal, with a server of its own, the client library and a real SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from mqtt_im.protocol.errors import MqttImError

if TYPE_CHECKING:
    from mqtt_im.client import Client, Message
    from mqtt_im.testing import ServerProcess

PATIENCE_S: Final = 30.0
BURST: Final = 300


def demo() -> None:
    """Show the whole story over real MQTT: chat, a device that goes offline, a server that is killed, nothing lost."""
    from mqtt_im.client import ClientError
    from mqtt_im.testing import ServerFailed, ServerProcess

    logging.getLogger("mqtt_im").addHandler(logging.NullHandler())  # that the server is gone, the story says itself
    start = time.monotonic()
    try:
        _tell("A server starts, in a process and a temporary folder of its own.")
        with ServerProcess({"limits.requests_per_second": 100_000}) as server, tempfile.TemporaryDirectory() as folder:
            asyncio.run(_story(server, Path(folder)))
    except (ServerFailed, ClientError) as error:
        raise MqttImError("demo", str(error)) from error
    except TimeoutError as error:
        raise MqttImError("demo", f"what was due has not come within {PATIENCE_S:g} s") from error
    _tell(f"Nothing was lost, doubled or out of order. That took {time.monotonic() - start:.1f} s.")


async def _story(server: ServerProcess, folder: Path) -> None:
    from mqtt_im.client import Client

    def client(name: str) -> Client:
        return Client(f"mqtt://{server.host}:{server.mqtt_port}", user=name, store=folder / f"{name}.db", synchronous="normal")

    async with client("alice") as alice:
        async with client("bob") as bob:
            await _chat(alice, bob)
        await _away(alice)
        async with client("bob") as bob:
            await _back(bob)
            await _killed(alice, bob, server)


async def _chat(alice: Client, bob: Client) -> None:
    _tell("alice and bob connect, each with the Python client and a small file for what is on its way, and chat:")
    await alice.send("bob", "Hello Bob")
    (said,) = await _take(bob, 1)
    await bob.send(said.conv, "Hello Alice", reply_to=said.seq)
    (answered,) = await _take(alice, 1)
    _tell(f"  alice → bob    {said.body}")
    _tell(f"  bob → alice    {answered.body}")


_MISSED: Final = ["Are you there?", "I'll write it down for you.", "See you!"]


async def _away(alice: Client) -> None:
    for sent in [await alice.send("bob", text) for text in _MISSED]:
        await sent.sent(PATIENCE_S)
    _tell(f"bob's phone goes offline, and alice sends {len(_MISSED)} messages. Then it comes back, and finds what it missed:")


async def _back(bob: Client) -> None:
    found = await _take(bob, len(_MISSED))
    for message in found:
        _tell(f"  alice → bob    {message.body}")
    if [message.body for message in found] != _MISSED:
        raise MqttImError("demo", "that is not what alice sent")


async def _killed(alice: Client, bob: Client, server: ServerProcess) -> None:
    burst = [f"number {number}" for number in range(1, BURST + 1)]
    _tell(f"Now alice sends {BURST} messages at once, and the server is killed (SIGKILL) in the middle of them.")
    reading = asyncio.create_task(_take(bob, BURST))
    with contextlib.ExitStack() as ending:
        ending.callback(reading.cancel)
        early = await asyncio.gather(*(alice.send("bob", text) for text in burst[: BURST // 2]))
        await early[BURST // 10].sent(PATIENCE_S)
        await asyncio.to_thread(server.kill)
        done = sum(sent.state != "queued" for sent in early)
        await asyncio.gather(*(alice.send("bob", text) for text in burst[BURST // 2 :]))
        _tell(f"  killed: {done} were committed, and {len(alice.outgoing())} wait on alice's disk: she writes on meanwhile")
        await asyncio.to_thread(server.start)
        _tell("  the server is back; both clients reconnect by themselves")
        found = await reading
    texts = [message.body for message in found]
    _tell(f"  bob has {len(texts)} messages, from {texts[0]!r} to {texts[-1]!r}")
    if texts != burst or [message.seq for message in found] != list(range(found[0].seq, found[0].seq + BURST)):
        raise MqttImError("demo", "these are not the messages that alice sent, in their order")
    async with asyncio.timeout(PATIENCE_S):
        while alice.outgoing():
            await alice.outgoing()[0].sent()


async def _take(im: Client, count: int) -> list[Message]:
    """The next messages; raises `TimeoutError` after `PATIENCE_S`."""
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE_S), im.messages() as messages:
        async for message in messages:
            found.append(message)
            if len(found) == count:
                await message.done()  # the others are done since the next one was asked for
                break
    return found


def _tell(line: str) -> None:
    typer.echo(line)
