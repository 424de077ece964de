"""What devices send, as requests; who sends it pays for what it is when it is unpacked, and for the time that reading it took."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Final

from mqtt_im.core import costs
from mqtt_im.protocol.codec import ZLIB, decode_request, decode_unpacked, unpacked
from mqtt_im.protocol.faults import Unreadable
from mqtt_im.protocol.requests import Request

from .settings import BridgeSettings

_SMALL: Final = 1024
"""Bytes that nothing can be packed into that takes long to read."""


def read(payload: bytes, settings: BridgeSettings, charge: Callable[[float], None]) -> tuple[Request, int]:
    """The request in a payload, and its bytes when unpacked. Raises `Unreadable`, after `charge` was told of its units too."""
    if len(payload) <= _SMALL and payload[:1] != ZLIB:
        try:
            return decode_request(payload, settings.max_body_bytes, settings.max_packet_bytes), len(payload)
        except Unreadable:
            charge(costs.of_nonsense(len(payload)))
            raise
    begin, size, understood = thread_time(), len(payload), False
    try:
        whole = unpacked(payload, settings.max_packet_bytes)
        size = len(whole)
        request = decode_unpacked(whole, settings.max_body_bytes)
        understood = True
    finally:
        charge(costs.of_payload(size, thread_time() - begin, understood))
    return request, size
