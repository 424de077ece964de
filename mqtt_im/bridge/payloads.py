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
    begin, units, size = thread_time(), costs.of_nonsense(len(payload)), len(payload)
    try:
        whole = unpacked(payload, settings.max_packet_bytes)
        size = len(whole)
        units = costs.of_nonsense(size)
        request = decode_unpacked(whole, settings.max_body_bytes)
        # Fields that nobody knows are read too. What of it is the body is counted once more, with the request.
        units = size / costs.BODY_BYTES if size > costs.BODY_BYTES else 0.0
    finally:
        charge(units + costs.of_more_time(thread_time() - begin, units + 1))
    return request, size
