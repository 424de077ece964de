"""Whoever sends a payload pays for what is in it, however small it was made for the way."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from pathlib import Path

import pytest

from mqtt_im.bridge import payloads
from mqtt_im.bridge.settings import BridgeSettings
from mqtt_im.core import costs
from mqtt_im.protocol.faults import Unreadable
from tests.support.bridge import BridgeWorld

LARGE = 200_000
SETTINGS = BridgeSettings(
    max_inflight=64, max_packet_bytes=262_144, max_body_bytes=65_536, requests_per_second=200, max_page=500, memory_mb=400
)


@pytest.mark.parametrize("pack", [zlib.compress, bytes])
@pytest.mark.parametrize(
    ("payload", "units"),
    [
        (b'{"op":"ack","pos":"x","zz":[%b[]]}' % (b"[]," * (LARGE // 3)), costs.of_nonsense(LARGE)),
        (b'{"op":"ack","pos":1,"zz":[%b[]]}' % (b"[]," * (LARGE // 3)), LARGE / costs.BODY_BYTES),
        (b'{"op":"ack","pos":1', costs.of_nonsense(19)),
        (b'{"op":"ack","pos":1}', 0),
    ],
)
def test_it_costs_what_it_is_when_it_is_unpacked(payload: bytes, units: float, pack: type[bytes]) -> None:
    charged: list[float] = []
    try:
        _, size = payloads.read(pack(payload), SETTINGS, charged.append)
        assert size == len(payload)
    except Unreadable:
        pass
    assert sum(charged) >= units


def test_what_takes_long_to_read_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b'{"op":"send","to":"bob","body":"%b"}' % (b"x" * 60_000)
    for seconds, more in ((0.0, 0.0), (0.005, 0.0), (0.020, 100 - 4 * (len(payload) / costs.BODY_BYTES + 1))):
        times = itertools.count(0, seconds)
        monkeypatch.setattr(payloads, "thread_time", lambda times=times: next(times))
        charged: list[float] = []
        payloads.read(payload, SETTINGS, charged.append)
        assert sum(charged) == pytest.approx(len(payload) / costs.BODY_BYTES + more)


def test_what_is_refused_for_a_while_is_not_read_for_it(tmp_path: Path) -> None:
    """A thousand that had waited too long were unpacked and read whole in one go, and nobody paid."""

    async def scenario() -> None:
        world = BridgeWorld(tmp_path)
        request = b'{"op":"ack","id":"x","pos":1,"zz":"%b"}'
        sent = [request % b"", request % (b"y" * LARGE), zlib.compress(request % b""), zlib.compress(request % (b"y" * LARGE))]
        told: list[str | None] = []
        for number, payload in enumerate([*sent, b"\x78 is nothing", b"{"]):
            bob = world.connect("bob", f"device{number}")
            world.settle()
            world.bridge.rate_limited(bob, payload, 1, 1.0, False)
            world.bridge.pump.all_ready()
            (error,) = bob.of("error")
            assert error["code"] == "rate_limited" and not bob.charged
            told.append(error.get("id"))
        assert told == ["x", "x", "x", None, None, None]
        world.close()

    asyncio.run(scenario())
