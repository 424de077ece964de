"""MQTT 5 beside 3.1.1 on our server: CPU of a message, memory of an idle connection, bytes of an item."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
from collections.abc import Sequence

from bench.idle import memory_of_idle
from bench.meter import cpu_seconds
from bench.pairs import Load
from bench.report import Row, Target
from bench.servers import OURS, Server, running
from mqtt_im.load import wire
from mqtt_im.load.traffic import Receiver, Sender, Traffic, connect_pairs, finish

_FORMS = {"3.1.1": wire.V311, OURS: wire.V5, "5, aliases": wire.V5_ALIASES}
"""By column; ours is version 5 without properties."""
_TURN = 4_000
"""Messages of a turn: some tenths of a second, of which the server's clock shows hundredths."""
_TURNS = 15
"""Of each version."""
_REST_S = 0.3
"""Between two turns."""
_ITEMS = 1_000
_USER = "0123456789abcdef"
"""Its down topic is what an alias saves."""


async def compare(load: Load, idle: int) -> list[Row]:
    """Every figure for each version: CPU in turns on one server, since other work moves it more than they differ."""
    name = f"MQTT 5: {load.name}: server CPU"
    middle = Row(f"{name}, median of {_TURNS} turns", "ms/1000", targets=(Target(1.05, over="×"),), reference="3.1.1")
    least = Row(f"{name}, the least", "ms/1000", targets=(Target(1.05, over="×"),), reference="3.1.1")
    spread = Row(f"{name}, from one quartile to the other", "ms/1000", reference="3.1.1")
    with running(OURS) as server:
        for column, turns in (await _in_turns(server, load)).items():
            quartiles = statistics.quantiles(turns, n=4)
            middle.values[column], least.values[column] = quartiles[1], min(turns)
            spread.values[column] = quartiles[2] - quartiles[0]
    memory = Row("MQTT 5: memory of an idle connection, subscribed", "KB", targets=(Target(1.1, over="×"),), reference="3.1.1")
    size = Row("MQTT 5: an item of 200 bytes, to a user id of 16, on the wire", "bytes", reference="3.1.1")
    for column, form in _FORMS.items():
        with running(OURS) as server:
            size.values[column] = await _bytes_of_item(dataclasses.replace(server, form=form))
        with running(OURS) as server:
            memory.values[column] = await memory_of_idle(dataclasses.replace(server, form=form), idle)
    return [middle, least, spread, memory, size]


async def _in_turns(server: Server, load: Load) -> dict[str, list[float]]:
    """Milliseconds of CPU for 1,000 messages, of each turn, by version. What one leaves to be done later falls on all alike."""
    traffic = Traffic()
    pairs: dict[str, list[tuple[Sender, Receiver]]] = {}
    for number, (column, form) in enumerate(_FORMS.items()):
        names = [(f"a{number}-{pair}", f"b{number}-{pair}") for pair in range(load.pairs)]
        pairs[column] = await connect_pairs(dataclasses.replace(server, form=form), traffic, names)
    each = max(1, _TURN // load.pairs)

    async def turn(column: str) -> float:
        before = cpu_seconds(server.pid)
        senders = [sender for sender, _ in pairs[column]]
        for sender in senders:
            sender.inflight, sender.limit = load.inflight, sender.started + each
        traffic.sending = True
        for sender in senders:
            sender.pump()
        await traffic.until(lambda: all(sender.finished() for sender in senders))
        return (cpu_seconds(server.pid) - before) * 1_000_000 / (each * load.pairs)

    found: dict[str, list[float]] = {column: [] for column in _FORMS}
    for column in _FORMS:
        await turn(column)  # warm
    for number in range(_TURNS):
        for column in _rotated(list(_FORMS), number):
            await asyncio.sleep(_REST_S)
            found[column].append(await turn(column))
    everybody = [pair for some in pairs.values() for pair in some]
    await finish(traffic, [sender for sender, _ in everybody], [peer for pair in everybody for peer in pair])
    return found


def _rotated(columns: Sequence[str], by: int) -> Sequence[str]:
    """Each is the first, and behind each other one, equally often."""
    at = by % len(columns)
    turned = [*columns[at:], *columns[:at]]
    return turned if by % 2 else turned[::-1]


async def _bytes_of_item(server: Server) -> float:
    traffic = Traffic()
    ((sender, receiver),) = await connect_pairs(server, traffic, [("alice", _USER)])
    before = receiver.bytes_in
    sender.inflight, sender.limit, traffic.sending = 20, _ITEMS, True
    sender.pump()
    await traffic.until(sender.finished)
    taken = (receiver.bytes_in - before) / _ITEMS
    await finish(traffic, [sender], [sender, receiver])
    return taken
