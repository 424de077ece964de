"""A short run of the checker on the real server. The long one is `make chaos`, the broken servers `--mutations`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mqtt_im
from tests.system.chaos.mutations import MUTATIONS, Mutation
from tests.system.chaos.node_mutations import NODE_MUTATIONS
from tests.system.chaos.run import run

_ALL = {**MUTATIONS, **NODE_MUTATIONS}


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_out_of_order() -> None:
    verdict = run(seed=1, seconds=18.0, kill_every_s=2.0, kills=5)
    assert not verdict.faults, "\n".join([verdict.text(), *verdict.trails])
    assert verdict.kills >= 5
    assert verdict.items > 1_000


@pytest.mark.slow
def test_nor_between_nodes() -> None:
    """Devices are at both by turns, and on both at once; a node is killed, one stands still, the database is killed."""
    plan = ["a node killed", "a node frozen until it is dead", "the database killed"]
    verdict = run(seed=2, seconds=0.0, kill_every_s=0.8, kills=len(plan), nodes=2, plan=plan)
    assert not verdict.faults, "\n".join([verdict.text(), *verdict.trails])
    assert verdict.troubles == dict.fromkeys(plan, 1)
    assert verdict.items > 500


@pytest.mark.parametrize("mutation", _ALL.values(), ids=_ALL)
def test_every_mutation_still_fits_the_code(mutation: Mutation, tmp_path: Path) -> None:
    """What it replaces is there once, and the broken copy is still Python; that it is caught is shown by `--mutations`."""
    for file, _, _ in mutation.changes:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(mqtt_im.__file__).parent / file, tmp_path / file)
    mutation.apply(tmp_path)
    for file, _, _ in mutation.changes:
        compile((tmp_path / file).read_text("utf-8"), file, "exec")
