"""What a delivery sends, with names."""

from __future__ import annotations

from typing import NamedTuple

from mqtt_im.core.delivery import Claim, Delivery


class Packet(NamedTuple):
    """See `core.delivery.Packet`."""

    packet_id: int
    payload: bytes
    dup: bool


def taken(delivery: Delivery, now: int, claim: Claim) -> Packet | None:
    """See `Delivery.take`."""
    packet = delivery.take(now, claim)
    return None if packet is None else Packet(*packet)
