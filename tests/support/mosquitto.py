"""mosquitto in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mqtt_im.testing import free_ports
from tests.support.raw import eventually


@contextmanager
def mosquitto(folder: Path, lines: Sequence[str] = ()) -> Iterator[int]:
    """Its port; anybody may log in. `lines` are added to its configuration."""
    (port,) = free_ports(1)
    who = ["user root"] if os.geteuid() == 0 else []
    config = folder / "mosquitto.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *who, *lines]) + "\n")
    with (folder / "mosquitto.log").open("wb") as log, subprocess.Popen(["mosquitto", "-c", str(config)], stderr=log) as process:
        try:
            eventually(lambda: _accepts(port), "mosquitto")
            yield port
        finally:
            process.terminate()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
