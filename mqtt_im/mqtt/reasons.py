"""Reason codes of MQTT 5 (MQTT5-2.4), and what is wrong with a peer that breaks the protocol."""

from __future__ import annotations

from typing import Final

SUCCESS: Final = 0x00
NO_SUBSCRIPTION: Final = 0x11
UNSPECIFIED: Final = 0x80
MALFORMED: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION: Final = 0x83
UNSUPPORTED_VERSION: Final = 0x84
IDENTIFIER_NOT_VALID: Final = 0x85
BAD_CREDENTIALS: Final = 0x86
NOT_AUTHORISED: Final = 0x87
UNAVAILABLE: Final = 0x88
BUSY: Final = 0x89
SHUTTING_DOWN: Final = 0x8B
BAD_METHOD: Final = 0x8C
KEEP_ALIVE: Final = 0x8D
TAKEN_OVER: Final = 0x8E
FILTER_INVALID: Final = 0x8F
TOPIC_INVALID: Final = 0x90
IDENTIFIER_IN_USE: Final = 0x91
IDENTIFIER_NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM: Final = 0x93
TOPIC_ALIAS: Final = 0x94
PACKET_TOO_LARGE: Final = 0x95
QUOTA: Final = 0x97
ADMINISTRATIVE: Final = 0x98
PAYLOAD_FORMAT: Final = 0x99
SERVER_MOVED: Final = 0x9D
USE_ANOTHER_SERVER: Final = 0x9C
SHARED_NOT_SUPPORTED: Final = 0x9E
CONNECTION_RATE: Final = 0x9F

FIRST_ERROR: Final = 0x80
"""Codes from here on say that something was refused or went wrong."""

_OF_ACKNOWLEDGEMENT: Final = frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))
CLIENT_CODES: Final = {
    "PUBACK": _OF_ACKNOWLEDGEMENT,
    "PUBREC": _OF_ACKNOWLEDGEMENT,
    "PUBREL": frozenset((0x00, 0x92)),
    "PUBCOMP": frozenset((0x00, 0x92)),
    "DISCONNECT": frozenset((0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99)),
}
"""What a client may say, by packet (MQTT5-3.4.2-1, -3.5.2-1, -3.6.2-1, -3.7.2-1, -3.14.2-1)."""

_CODES: Final = {
    "auth_packet": PROTOCOL_ERROR,  # no enhanced authentication was begun (MQTT5-4.12.0-6)
    "auth_data": PROTOCOL_ERROR,  # without a method (MQTT5-3.1.2.11.10)
    "server_packet": PROTOCOL_ERROR,
    "second_connect": PROTOCOL_ERROR,  # MQTT5-3.1.0-2
    "packet_id_zero": PROTOCOL_ERROR,
    "no_filters": PROTOCOL_ERROR,  # MQTT5-3.8.3-2
    "property_twice": PROTOCOL_ERROR,  # MQTT5-2.2.2.2
    "property_value": PROTOCOL_ERROR,
    "reason_code": PROTOCOL_ERROR,
    "session_expiry": PROTOCOL_ERROR,  # MQTT5-3.14.2.2.2
    "subscription_identifier": PROTOCOL_ERROR,  # MQTT5-3.3.4-6
    "response_topic": PROTOCOL_ERROR,  # MQTT5-3.3.2-14
    "no_topic": PROTOCOL_ERROR,  # MQTT5-3.3.2-8
    "subscribe_qos": PROTOCOL_ERROR,  # MQTT5-3.8.3.1
    "retain_handling": PROTOCOL_ERROR,  # MQTT5-3.8.3.1
    "no_local": PROTOCOL_ERROR,  # MQTT5-3.8.3-4
    "topic_alias": TOPIC_ALIAS,  # MQTT5-3.3.2-8, -9
    "filter": FILTER_INVALID,
    "packet_too_large": PACKET_TOO_LARGE,
    "answer_too_large": PACKET_TOO_LARGE,  # MQTT5-3.1.2-24
    "too_many_filters": QUOTA,
    "user_properties": QUOTA,
    "receive_maximum": RECEIVE_MAXIMUM,  # MQTT5-3.3.4-7
    "too_many_unreleased": RECEIVE_MAXIMUM,
}
"""The code of each reason that is not simply a malformed packet."""


class Malformed(Exception):
    """The peer broke the protocol: the connection is closed at once (MQTT-4.8.0-1). `reason` is a word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def code(self) -> int:
        """What MQTT 5 calls it, in a DISCONNECT or CONNACK (MQTT5-4.13.1)."""
        return _CODES.get(self.reason, MALFORMED)
