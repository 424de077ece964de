"""A device that was away comes back to a long inbox: items a second until it has everything."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from time import perf_counter

import msgspec

from bench.meter import at_rest, usage
from bench.report import Row, Target
from bench.servers import AMQTT, OURS, Server, running
from mqtt_im.load import wire
from mqtt_im.load.broker import DEVICE, PREFIX
from mqtt_im.load.peer import Peer, PeerError, close_all
from mqtt_im.load.traffic import LoneSender, Traffic, finish, join

_USER = "away"
_SENDERS = 20
_INFLIGHT = 50
_POS = re.compile(rb'"pos":\s*(\d+)')
_FILL_TIMEOUT_S = 600.0
_COMPACT_HELLO = b'{"op":"hello","codec":"msgpack","batch":true,"zip":true}'


class _Packet(msgspec.Struct):
    """What is looked at in an item or a batch of them."""

    op: str
    pos: int = 0
    items: list[msgspec.Raw] = []


class _Away(Peer):
    """The device that comes back; every item must be the next."""

    def __init__(self, traffic: Traffic, relayed: bool, compact: bool) -> None:
        super().__init__()
        self.traffic = traffic
        self.relayed = relayed
        self.items = 0
        self.bytes = 0
        self._compact = msgspec.msgpack.Decoder(_Packet) if compact else None

    def received(self, data: bytes, start: int, stop: int) -> None:
        self.bytes += stop - start
        if self.relayed:
            self.items += 1
            return
        if self._compact:
            payload = data[start:stop]
            packet = self._compact.decode(zlib.decompress(payload) if payload[0] == 0x78 else payload)
            pos, count = packet.pos, len(packet.items) or 1
        else:
            found = _POS.search(data, start, stop)
            pos, count = int(found[1]) if found else 0, 1
        if not pos:
            return  # an event or a reply
        self.items += count
        if pos != self.items:
            self.traffic.fail(PeerError(f"item {pos} came as number {self.items}"))

    def fail(self, error: PeerError) -> None:
        self.traffic.fail(error)


async def _leave_behind(server: Server, traffic: Traffic, items: int) -> None:
    """The device is registered and away, and so many messages have been sent to it."""
    device = Peer()
    await device.dial(server, wire.connect(f"{_USER}:{DEVICE}", _USER, clean=False))
    await device.subscribe(f"{PREFIX}/{_USER}/down" if server.is_ours else f"{PREFIX}/+/{DEVICE}/up")
    device.leave()
    await device.closed
    senders: list[LoneSender] = []
    for number in range(_SENDERS):
        sender = LoneSender(traffic, f"s{number}", [_USER], server)
        await join(server, sender, sender.user, f"{PREFIX}/{sender.user}/down")
        sender.inflight, sender.limit = _INFLIGHT, items // _SENDERS
        senders.append(sender)
    traffic.sending = True
    for sender in senders:
        sender.pump()
    await traffic.until(lambda: all(sender.started >= sender.limit and sender.finished() for sender in senders), _FILL_TIMEOUT_S)
    await finish(traffic, senders, senders)


async def _come_back(server: Server, items: int, compact: bool) -> tuple[float, float, float]:
    """(items a second, items a CPU second, bytes an item)."""
    traffic = Traffic()
    device = _Away(traffic, not server.is_ours, compact)
    if compact:  # this device's deliveries start with the session kept: `hello` goes with CONNECT, before anything can come
        hello = wire.publish(f"{PREFIX}/{_USER}/{DEVICE}/up", _COMPACT_HELLO, 1)
        await _compact_back(server, device, hello)
        before, begin = usage(server.pid), perf_counter()
        await device.subscribe(f"{PREFIX}/{_USER}/down")
    else:
        before, begin = usage(server.pid), perf_counter()
        await device.dial(server, wire.connect(f"{_USER}:{DEVICE}", _USER, clean=False))
    await traffic.until(lambda: device.items >= items, 120)
    elapsed, used = perf_counter() - begin, usage(server.pid) - before
    await close_all([device])
    return items / elapsed, items / used.cpu_s, device.bytes / items


async def _compact_back(server: Server, device: _Away, hello: bytes) -> None:
    await device.dial(server, wire.connect(f"{_USER}:{DEVICE}", _USER), hello)
    await device.traffic.until(lambda: device.pubacks == 1)


async def compare(servers: Sequence[str], items: int) -> list[Row]:
    """Plain on every server, and in batches of zipped MessagePack on ours.

    mosquitto keeps its queue in memory. Stock amqtt is left out: of a backlog it delivers but a part.
    """
    plain = Row("catch-up, plain", "items/s", targets=(Target(15_000, 100_000, more_is_better=True),))
    compact = Row("catch-up, batch + MessagePack + zlib", "items/s", targets=(Target(15_000, 100_000, more_is_better=True),))
    cpu, compact_cpu = Row(plain.what, "items/CPU s"), Row(compact.what, "items/CPU s")
    size, compact_size = Row(plain.what, "bytes/item"), Row(compact.what, "bytes/item")
    items -= items % _SENDERS
    for name in (name for name in servers if name != AMQTT):
        for packed in (False, True) if name == OURS else (False,):
            with running(name) as server:
                await _leave_behind(server, Traffic(), items)
                await at_rest(server.pid)
                result = await _come_back(server, items, packed)
            for row, value in zip((compact, compact_cpu, compact_size) if packed else (plain, cpu, size), result, strict=True):
                row.values[name] = value
    return [row for row in (plain, cpu, size, compact, compact_cpu, compact_size) if row.values]
