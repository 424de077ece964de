"""How a refused request reads in an acknowledgement of MQTT 5 (PROTOCOL §7)."""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt import reasons
from mqtt_im.protocol.errors import Refusal

CODES: Final = {
    "bad_payload": reasons.PAYLOAD_FORMAT,
    "bad_field": reasons.PAYLOAD_FORMAT,
    "unknown_op": reasons.PAYLOAD_FORMAT,
    "not_found": reasons.NOT_AUTHORISED,
    "not_member": reasons.NOT_AUTHORISED,
    "forbidden": reasons.NOT_AUTHORISED,
    "blocked": reasons.NOT_AUTHORISED,
    "conflict": reasons.IMPLEMENTATION,
    "out_of_order": reasons.IMPLEMENTATION,
    "too_large": reasons.IMPLEMENTATION,
    "rate_limited": reasons.QUOTA,
    "quota": reasons.QUOTA,
    "unavailable": reasons.UNSPECIFIED,
}


def reason_of(refusal: Refusal) -> tuple[int, str]:
    """Reason code and Reason String."""
    return CODES.get(refusal.code, reasons.UNSPECIFIED), f"{refusal.code}: {refusal.message}"
