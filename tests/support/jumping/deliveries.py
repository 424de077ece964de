"""What a server's deliveries do, one line for each step: see `tests.support.jumps.WallClock`.

Installed into a server by `sitecustomize`, so that the product knows nothing of it. A line is written before the packet is, and
so survives SIGKILL.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from mqtt_im.core.delivery import Delivery


def install(file: str) -> None:
    """Every delivery of this process tells from now on, at the end of `file`, what it is told and what it offers."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(delivery: Delivery, what: str) -> None:
        where = f"next {delivery.next}, cursor {delivery.cursor}, head {delivery.head}, in flight {len(delivery.flights)}"
        name = f"{delivery.user}:{delivery.device}"
        os.write(handle, f"{time.monotonic():.4f} {name} #{id(delivery) >> 4 & 0xFFFF:04x} {what}; {where}\n".encode())

    for method, shown in _SHOWN.items():
        setattr(Delivery, method, _told(getattr(Delivery, method), shown, note))


def _told(method: Callable[..., Any], shown: Callable[..., str], note: Callable[[Delivery, str], None]) -> Callable[..., Any]:
    def told(delivery: Delivery, *given: Any, **named: Any) -> Any:
        result = method(delivery, *given, **named)
        if what := shown(result, delivery, *given):
            note(delivery, what)
        return result

    return told


def _took(packet: Any, delivery: Delivery, *_: Any) -> str:
    if packet is None:
        return ""
    first, last = delivery.offered[0], delivery.offered[-1]
    return f"offers {first[1].first or first[0]}…{last[0]} as packet {packet[0]}{', DUP' if packet[2] else ''}"


def _fetched(_: Any, __: Delivery, entries: list[Any], head: int) -> str:
    return f"has read {len(entries)} items, {entries[0][0]}…{entries[-1][0]}" if entries else f"has read nothing, head {head}"


_SHOWN: dict[str, Callable[..., str]] = {
    "__init__": lambda _, delivery, *__: f"begins, app {delivery.app}, window {delivery.window}, QoS {delivery.qos}",
    "live": lambda _, __, pos, entry: f"hears of {pos}{'' if entry is not None else ', without it'}",
    "fetched": _fetched,
    "acked": lambda moved, _, packet_id: f"has PUBACK of packet {packet_id}{', which moves the cursor' if moved else ''}",
    "confirmed": lambda _, __, pos: f"is told ack {pos}",
    "restart": lambda _, __, cursor, ___: f"is told hello after {cursor}",
    "resume": lambda _, __, flights: "resumes " + ", ".join(
        f"{each.first}…{each.last}{' (acknowledged)' if each.acked else ''}" for each in flights.values()
    ),
    "resume_blind": lambda _, __, upto: f"may have been offered what is up to {upto}" if upto else "",
    "take": _took,
    "too_large": lambda _, __, packet_id: f"offers packet {packet_id} as a void: it is too large",
    "put_back": lambda _, __, packet_id: f"takes packet {packet_id} back: it is too large",
}  # fmt: skip
