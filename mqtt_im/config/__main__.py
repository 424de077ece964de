"""`python -m mqtt_im.config` writes docs/configuration.md anew, from the folder that holds the source."""

from __future__ import annotations

from pathlib import Path

from mqtt_im.config.reference import render

if __name__ == "__main__":
    Path("docs/configuration.md").write_text(render(), encoding="utf-8")
