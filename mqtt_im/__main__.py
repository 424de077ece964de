"""`python -m mqtt_im` is the program `mqtt-im`."""

from __future__ import annotations

from mqtt_im.cli import main

if __name__ == "__main__":
    main()
