"""The dashboard and the alerts in config/ ask for what /metrics has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mqtt_im.metrics import COUNTERS, HISTOGRAMS
from mqtt_im.testing import ServerProcess
from tests.support.web import Web

CONFIG = Path(__file__).parents[2] / "config"
DASHBOARD: dict[str, Any] = json.loads((CONFIG / "grafana-dashboard.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((CONFIG / "prometheus-rules.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [rule["expr"] for rule in RULES]


@pytest.fixture(scope="module")
def families() -> set[str]:
    """The names of everything that a server which has just started tells, and of what it counts once it happens."""
    with ServerProcess() as server, Web(server.http_port) as web:
        told = web.ask("GET", "/metrics").body.decode()
    found = set(re.findall(r"^# TYPE (\w+) ", told, re.MULTILINE))
    return found | {f"mqtt_im_{name}_total" for name in COUNTERS} | {f"mqtt_im_{name}" for name in HISTOGRAMS}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_asked_for_is_there(expression: str, families: set[str]) -> None:
    names = re.findall(r"\b(?:mqtt_im|process)_\w+", expression)
    assert names or "up{" in expression
    for name in names:
        base = name.removesuffix("_bucket")
        assert base in families or base.removesuffix("_total") in families, name
    assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")


def test_every_label_that_is_asked_for_is_one_of_its_metric() -> None:
    for expression in EXPRESSIONS:
        for name, labels in re.findall(r"mqtt_im_(\w+?)_total\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)(?:=|!)", labels)) - {"instance"}
            assert asked <= set(COUNTERS[name][1] if name in COUNTERS else ()), expression


def test_every_alert_says_what_is_wrong() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"]
