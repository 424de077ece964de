"""MQTT 5 beside 3.1.1 on our server: CPU of a message, memory of an idle connection, bytes of an item."""

from __future__ import annotations

import dataclasses

from bench.idle import memory_of_idle
from bench.pairs import Load, between_pairs, names_of
from bench.report import Row, Target
from bench.servers import OURS, running
from mqtt_im.load import wire
from mqtt_im.load.traffic import Traffic, connect_pairs, finish

_FORMS = {"3.1.1": wire.V311, OURS: wire.V5, "5, aliases": wire.V5_ALIASES}
"""By column; ours is version 5 without properties."""
_ITEMS = 1_000
_USER = "0123456789abcdef"
"""Its down topic is what an alias saves."""


async def compare(load: Load, idle: int) -> list[Row]:
    """Every figure for each version, on a fresh server each."""
    cpu = Row(f"MQTT 5: {load.name}: server CPU", "ms/1000", targets=(Target(1.05, over="×"),), reference="3.1.1")
    memory = Row("MQTT 5: memory of an idle connection, subscribed", "KB", targets=(Target(1.1, over="×"),), reference="3.1.1")
    size = Row("MQTT 5: an item of 200 bytes, to a user id of 16, on the wire", "bytes", reference="3.1.1")
    for column, form in _FORMS.items():
        with running(OURS) as server:
            spoken = dataclasses.replace(server, form=form)
            figures = (await between_pairs(spoken, load, names_of(load.pairs))).figures()
            cpu.values[column] = figures["server CPU", "ms/1000"]
        with running(OURS) as server:
            spoken = dataclasses.replace(server, form=form)
            traffic = Traffic()
            ((sender, receiver),) = await connect_pairs(spoken, traffic, [("alice", _USER)])
            before = receiver.bytes_in
            sender.inflight, sender.limit, traffic.sending = 20, _ITEMS, True
            sender.pump()
            await traffic.until(lambda sender=sender: sender.finished())  # type: ignore[misc]
            size.values[column] = (receiver.bytes_in - before) / _ITEMS
            await finish(traffic, [sender], [sender, receiver])
        with running(OURS) as server:
            memory.values[column] = await memory_of_idle(dataclasses.replace(server, form=form), idle)
    return [cpu, memory, size]
