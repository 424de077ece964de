"""The program `mqtt-im`; `python -m mqtt_im` is the same."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that the arguments name.

    A SIGHUP (`systemctl reload`) that comes before a server has read its configuration has nothing to reload and must not
    end it; importing the program takes long enough for that.
    """
    if sys.argv[1:2] == ["serve"] and sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from mqtt_im import cli

    cli.main()


if __name__ == "__main__":
    main()
