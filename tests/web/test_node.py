"""The messaging core of the web chat, in Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_core(file: Path) -> None:
    node = shutil.which("node") or shutil.which("nodejs")
    assert node, "Node.js is missing; tools/need-chromium installs it"
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
