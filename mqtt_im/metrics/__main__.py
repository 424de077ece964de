"""`python -m mqtt_im.metrics` writes docs/metrics.md anew, from the folder that holds the source."""

from __future__ import annotations

from pathlib import Path

from mqtt_im.metrics.reference import render

if __name__ == "__main__":
    Path("docs/metrics.md").write_text(render(), encoding="utf-8")
