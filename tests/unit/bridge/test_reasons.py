"""Every code of an `error` has its reason code in MQTT 5 (PROTOCOL §7)."""

from __future__ import annotations

from typing import get_args

from mqtt_im.bridge.reasons import CODES, reason_of
from mqtt_im.protocol.errors import Code, Refusal


def test_no_code_is_left_out() -> None:
    assert set(CODES) == set(get_args(Code))


def test_the_text_is_code_and_message() -> None:
    assert reason_of(Refusal("conflict", "id: it is taken")) == (0x83, "conflict: id: it is taken")
