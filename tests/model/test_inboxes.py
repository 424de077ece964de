"""Some runs of `python -m tests.fuzz inboxes`, the same each time (INV-1 to INV-4, INV-10 to INV-13)."""

from __future__ import annotations

import os

from tests.fuzz import inboxes

RUNS = 2_000 if os.environ.get("MQTT_IM_HYPOTHESIS") == "long" else 8


def test_nothing_is_lost_doubled_or_out_of_order() -> None:
    assert inboxes.hunt(seed=100, seconds=0, rounds=RUNS)
