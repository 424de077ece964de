"""The program `mqtt-im`; `python -m mqtt_im` is the same."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that the arguments name.

    A SIGHUP (`systemctl reload`) that comes before a server has read its configuration has nothing to reload and must not
    end it; importing the program takes long enough for that. A SIGINT meanwhile ends it without a traceback.
    """
    if sys.argv[1:2] == ["serve"] and sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mqtt_im import cli

    signal.signal(signal.SIGINT, interrupted)
    cli.main()


if __name__ == "__main__":
    main()
