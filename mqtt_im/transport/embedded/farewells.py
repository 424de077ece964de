"""What a client of MQTT 5 is told when it is refused or its connection ends (MQTT5-3.2.2.2, -3.14.2.1)."""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt import reasons

DISCONNECTS: Final = {
    "stopping": reasons.SHUTTING_DOWN,
    "moved": reasons.SHUTTING_DOWN,
    "keep_alive": reasons.KEEP_ALIVE,
    "taken_over": reasons.TAKEN_OVER,
    "forbidden_publishes": reasons.QUOTA,
    "memory": reasons.QUOTA,
    "account_removed": reasons.ADMINISTRATIVE,
    "password_changed": reasons.ADMINISTRATIVE,
    "forgotten": reasons.ADMINISTRATIVE,
    "administrator": reasons.ADMINISTRATIVE,
    "token_expired": reasons.ADMINISTRATIVE,
    "token_revoked": reasons.ADMINISTRATIVE,
    "uplink_failed": reasons.UNSPECIFIED,
    "unavailable": reasons.UNSPECIFIED,
    "internal_error": reasons.UNSPECIFIED,
}
"""Reasons of `Wire.end` → DISCONNECT. What is not here ends without one: it was the client's wish, or its socket is gone."""

CONNACKS: Final = {3: reasons.UNAVAILABLE, 4: reasons.BAD_CREDENTIALS, 5: reasons.NOT_AUTHORISED}
"""Return codes of a refused login → CONNACK."""
