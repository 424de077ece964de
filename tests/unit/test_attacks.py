"""What attacks of `bench` share holds with the threads that they have."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator

import pytest

from bench.attacks.foe import ids

THREADS, EACH = 8, 5_000


@pytest.fixture
def fast_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("fast_switching")
def test_threads_share_what_makes_ids() -> None:
    """It was a generator, which a second thread may not ask meanwhile: then the attack ended."""
    made, found = ids(), list[str]()
    threads = [threading.Thread(target=lambda: found.extend(itertools.islice(made, EACH))) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == THREADS * EACH
