"""What all models have in common."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from mqtt_im.store.threads import writer


@pytest.fixture(autouse=True)
def no_hurry() -> Iterator[None]:
    """However slow the machine is, a batch is decided whole and in its order, as the twin does it."""
    with patch.object(writer, "MAX_SECONDS", float("inf")):
        yield
