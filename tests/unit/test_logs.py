"""What a log line looks like, and that a flood is held back."""

from __future__ import annotations

import json
import logging
import os
import threading

import pytest

from mqtt_im.logs import MAX_EXCEPTION, MAX_TEXT, JsonFormatter, LineHandler, LineWriter, RateLimited, TextFormatter


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


def test_every_line_of_one_of_several_nodes_names_it() -> None:
    written: list[bytes] = []
    handler = LineHandler(LineWriter(written.append))
    handler.setFormatter(JsonFormatter())
    handler.emit(record("alone"))
    handler.node = "n1"
    handler.emit(record("a node is gone", other="n2"))
    handler.flush()
    alone, named = (json.loads(line) for line in b"".join(written).splitlines())
    assert "node" not in alone and (named["other"], named["node"]) == ("n2", "n1")


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
            limited.info("closed", address="192.0.2.1")
        limited.warning("another kind", address="192.0.2.1")
        limited.info("closed", address="192.0.2.2")
        now = 60
        limited.info("closed", address="192.0.2.1")
    assert [(entry.message, entry.__dict__["address"]) for entry in caplog.records] == [
        ("closed", "192.0.2.1"),
        ("closed", "192.0.2.1"),
        ("another kind", "192.0.2.1"),
        ("closed", "192.0.2.2"),
        ("closed", "192.0.2.1"),
    ]
    assert caplog.records[-1].__dict__["held_back"] == 3
    assert suppressed == 3


def test_a_level_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "mqtt_im.test"):
        RateLimited(logging.getLogger("mqtt_im.test"), on_suppressed=pytest.fail).info("closed")
    assert caplog.records == []


def test_a_network_of_ipv6_is_one_source(caplog: pytest.LogCaptureFixture) -> None:
    limited = RateLimited(logging.getLogger("mqtt_im.test"), 2, clock=lambda: 0.0)
    with caplog.at_level(logging.INFO, "mqtt_im.test"):
        for number in range(5):
            limited.info("closed", address=f"2001:db8::{number}")
    assert len(caplog.records) == 2


def test_lines_have_a_bounded_length() -> None:
    line = record("x" * 100_000, user="y" * 100_000)
    line.exc_info = (ValueError, ValueError("z" * 100_000), None)
    text = JsonFormatter().format(line)
    assert len(text) < 2 * MAX_TEXT + MAX_EXCEPTION + 500
    assert json.loads(text)["user"].startswith("yyy")
    assert len(TextFormatter(colour=False).format(line)) < 2 * MAX_TEXT + MAX_EXCEPTION + 500


class Collector:
    """Takes lines off the writer, when it is told to."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.busy = threading.Event()
        self.text = b""

    def write(self, data: bytes) -> None:
        self.busy.set()
        assert self.reads.wait(60)
        self.text += data


def test_nobody_waits_for_who_reads_the_log_and_what_was_dropped_is_told() -> None:
    collector = Collector()
    writer = LineWriter(collector.write, max_bytes=50)
    handler = LineHandler(writer)
    handler.setFormatter(TextFormatter(colour=False))
    writer.put("first")
    assert collector.busy.wait(60)
    for number in range(10):
        writer.put(f"line {number:03}")
    assert writer.dropped == 5
    assert not writer.flush(0.01)
    collector.reads.set()
    assert writer.flush(10)
    lines = collector.text.decode().splitlines()
    assert lines[0] == "first"
    assert lines[1].endswith("warning log lines were dropped: nobody read stderr in time lines=5")
    assert lines[2:] == [f"line {number:03}" for number in range(5)]
    writer.put("later")
    assert writer.flush(10)
    assert collector.text.decode().splitlines()[7:] == ["later"]


def test_a_log_that_nobody_can_write_is_only_counted() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    writer = LineWriter(lambda data: (os.write(write_end, data), None)[1])
    writer.put("nobody is there")
    assert writer.flush(10)
    os.close(write_end)
    assert writer.dropped == 1


def test_a_line_that_cannot_be_shown_says_so() -> None:
    collector = Collector()
    collector.reads.set()
    handler = LineHandler(LineWriter(collector.write))
    handler.setFormatter(TextFormatter(colour=False))
    handler.handle(logging.LogRecord("mqtt_im.test", logging.INFO, __file__, 1, "%d", ("no number",), None))
    handler.flush()
    assert b"a log line of mqtt_im.test can't be shown: TypeError" in collector.text
