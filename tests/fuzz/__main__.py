"""`python -m tests.fuzz`: the fuzzers for minutes. A find ends the run; it becomes a test, then it is mended."""

from __future__ import annotations

import argparse
import sys
from random import SystemRandom

from tests.fuzz import connections, inboxes, payloads

FUZZERS = {"connections": connections.run, "payloads": payloads.run, "inboxes": inboxes.hunt}


def main() -> int:
    """Exit code 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[[], *FUZZERS], help="which fuzzers; all of them where none is named")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each of them runs")
    parser.add_argument("--seed", type=int, help="drawn and printed where it is not given")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else SystemRandom().randrange(10**6)
    found = 0
    for name in options.what or FUZZERS:
        print(f"{name}: seed {seed}, {options.seconds:g} s", flush=True)
        try:
            print(f"  {FUZZERS[name](seed, options.seconds)}", flush=True)
        except connections.Found as find:
            print(f"  FOUND: {find}", flush=True)
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
