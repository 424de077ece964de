"""Fixtures for test suites that need a messaging server; pytest loads this file by itself (entry point `pytest11`).

Nothing of the server is imported before a test asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mqtt_im.testing import ServerProcess, Value


@pytest.fixture
def mqtt_im_config() -> dict[str, Value]:
    """Configuration of `mqtt_im_server`, with dotted keys; override this fixture to change it."""
    return {}


@pytest.fixture
def mqtt_im_server(mqtt_im_config: dict[str, Value]) -> Iterator[ServerProcess]:
    """A running server in a process of its own, in open mode, with an empty store; stopped after the test."""
    from mqtt_im.testing import ServerProcess

    with ServerProcess(mqtt_im_config) as server:
        yield server
