"""What a log line looks like, and that a flood is held back."""

from __future__ import annotations

import json
import logging

import pytest

from mqtt_im.logs import JsonFormatter, RateLimited, TextFormatter


def record(message: str, **values: object) -> logging.LogRecord:
    logger = logging.getLogger("mqtt_im.test")
    return logger.makeRecord("mqtt_im.test", logging.WARNING, __file__, 1, message, (), None, extra=values)


def test_json_lines_carry_the_fields() -> None:
    line = json.loads(JsonFormatter().format(record("login refused", user="alice", address="192.0.2.1")))
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "mqtt_im.test",
        "message": "login refused",
        "user": "alice",
        "address": "192.0.2.1",
    }


def test_text_lines_carry_the_fields_and_no_control_characters() -> None:
    line = TextFormatter(colour=False).format(record("login refused", user="a\n\x1b[2Jb"))
    assert line.endswith(r"warning login refused user=a\n\x1b[2Jb")
    assert "\x1b[33m" in TextFormatter(colour=True).format(record("login refused"))


def test_exceptions_are_shown() -> None:
    line = record("failed")
    line.exc_info = (ValueError, ValueError("broken"), None)
    assert "ValueError: broken" in json.loads(JsonFormatter().format(line))["exception"]
    assert "ValueError: broken" in TextFormatter(colour=False).format(line)


def test_a_flood_is_held_back_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    suppressed = 0

    def on_suppressed() -> None:
        nonlocal suppressed
        suppressed += 1

    limited = RateLimited(logging.getLogger("mqtt_im.test"), 2, on_suppressed, lambda: now)
    with caplog.at_level(logging.INFO, "mqtt_im.test"):
        for _ in range(5):
            limited.info("closed", reason="malformed")
        limited.warning("another kind")
        now = 60
        limited.info("closed", reason="malformed")
    assert [entry.message for entry in caplog.records] == ["closed", "closed", "another kind", "closed"]
    assert caplog.records[-1].__dict__["held_back"] == 3
    assert suppressed == 3


def test_a_level_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "mqtt_im.test"):
        RateLimited(logging.getLogger("mqtt_im.test"), on_suppressed=pytest.fail).info("closed")
    assert caplog.records == []
