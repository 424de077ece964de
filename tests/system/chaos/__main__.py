"""`python -m tests.system.chaos`: the checker for minutes, or on broken copies of the server."""

from __future__ import annotations

import argparse
import sys
import time
from random import SystemRandom

from .mutations import MUTATIONS, SOUND, TRIES, verdict_on
from .node_mutations import NODE_MUTATIONS, NODE_SOUND
from .run import run
from .world import HELLOS

ALL = {**MUTATIONS, **NODE_MUTATIONS}


def main() -> int:
    """Exit code 0 where every promise was kept, or every mutation was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the noise lasts")
    parser.add_argument("--seconds", type=float, help="the same in seconds")
    parser.add_argument("--seed", type=int, help="of the plan; drawn and printed where it is not given")
    parser.add_argument("--nodes", type=int, default=0, metavar="N", help="so many servers on one PostgreSQL; else one on SQLite")
    parser.add_argument("--kill-every", type=float, default=2.5, metavar="SECONDS", help="mean time between two kills")
    parser.add_argument("--hellos", type=float, default=HELLOS, help="how likely a device says where it stands, each time")
    parser.add_argument("--mutations", nargs="*", metavar="NAME", help="show that broken copies of the server are caught")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else SystemRandom().randrange(10**6)
    if options.mutations is not None:
        return mutations(options.mutations or list(ALL), seed)
    seconds = options.seconds if options.seconds is not None else options.minutes * 60
    print(f"chaos: seed {seed}, {seconds:g} s of noise", flush=True)
    started = time.monotonic()
    verdict = run(seed, seconds, kill_every_s=options.kill_every, nodes=options.nodes, hellos=options.hellos)
    more = f" --nodes {options.nodes}" if options.nodes else ""
    print("\n".join(verdict.trails), file=sys.stderr)
    print(f"{verdict.text()}\n  took {time.monotonic() - started:.0f} s; again with: --seed {seed} --seconds {seconds:g}{more}")
    return 1 if verdict.faults else 0


def mutations(names: list[str], seed: int) -> int:
    """Run the checker on one broken copy after the other, and on sound ones for comparison."""
    wrong = 0
    for name in names:
        mutation, is_sound = ALL[name], name in SOUND | NODE_SOUND
        verdict, seen = verdict_on(mutation, seed, tries=1 if is_sound else TRIES)
        right = not verdict.faults if is_sound else seen
        wrong += not right
        word = ("passed" if right else "FAILED") if is_sound else ("caught" if right else "MISSED")
        print(f"{word}: {name}: {mutation.what}\n  {verdict.text(2 if right else 40)}", flush=True)
    print(f"{len(names) - wrong} of {len(names)} as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
