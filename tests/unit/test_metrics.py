"""Counters and what they look like."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from starlette.requests import Request

from mqtt_im.http.health import metrics_route
from mqtt_im.metrics import COUNTERS, HISTOGRAMS, Metrics

PACKAGE = Path(__file__).parents[2] / "mqtt_im"


def test_counters_histograms_and_gauges_are_rendered() -> None:
    metrics = Metrics()
    metrics.count("uplinks", op="send")
    metrics.count("uplinks", 2, op="send")
    metrics.count("plain_messages")
    metrics.observe("login_seconds", 0.03)
    metrics.observe("login_seconds", 5000)
    metrics.show("tasks", lambda: 7)
    metrics.show("commits", lambda: 8)
    metrics.show_each("connections", lambda: {"sse": 2})
    text = metrics.render().decode()
    assert 'mqtt_im_uplinks_total{op="send"} 3.0' in text
    assert "mqtt_im_plain_messages_total 1.0" in text
    assert 'mqtt_im_login_seconds_bucket{le="0.01"} 0.0' in text
    assert 'mqtt_im_login_seconds_bucket{le="0.05"} 1.0' in text
    assert 'mqtt_im_login_seconds_bucket{le="+Inf"} 2.0' in text
    assert "mqtt_im_login_seconds_sum 5000.03" in text
    assert "mqtt_im_commits_total 8.0" in text
    assert "mqtt_im_tasks 7.0" in text
    assert 'mqtt_im_connections{protocol="sse"} 2.0' in text
    assert metrics.value("uplinks", op="send") == 3
    assert metrics.value("uplinks", op="ack") == 0


def test_what_is_not_declared_can_t_be_counted() -> None:
    with pytest.raises(KeyError):
        Metrics().count("nonsense")
    with pytest.raises(KeyError):
        Metrics().count("uplinks")


def test_all_that_the_server_counts_is_declared_and_all_that_is_declared_is_counted() -> None:
    source = "".join(file.read_text() for file in PACKAGE.rglob("*.py") if file.parent.name != "metrics")
    assert set(re.findall(r'(?:count|cell)\(\s*"(\w{2,})"', source)) == set(COUNTERS)
    assert set(re.findall(r'\bobserver?(?:\(|,)\s*"(\w+)"', source)) == set(HISTOGRAMS)


def test_who_asks_in_one_turn_of_the_loop_is_shown_what_is_made_once() -> None:
    made: list[bytes] = []

    class Counted(Metrics):
        def render(self) -> bytes:
            made.append(b"%d" % len(made))
            return made[-1]

    async def scenario() -> None:
        endpoint = metrics_route(Counted()).endpoint
        request = Request({"type": "http"})
        assert {(await answer).body for answer in [endpoint(request) for _ in range(50)]} == {b"0"}
        await asyncio.sleep(0)
        assert (await endpoint(request)).body == b"1"

    asyncio.run(scenario())
