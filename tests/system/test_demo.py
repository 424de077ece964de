"""`mqtt-im demo`: the whole story, in one terminal."""

from __future__ import annotations

import subprocess
import sys


def test_the_demo_loses_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "mqtt_im", "demo"], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "I'll write it down for you." in done.stdout
    assert "from 'number 1' to 'number 300'" in done.stdout
    assert "Nothing was lost, doubled or out of order." in done.stdout
