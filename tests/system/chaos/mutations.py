"""Broken copies of the server, each of which the checker must catch.

A mutation replaces text in a copy of the package; the product knows nothing of it. Text that is not found exactly once fails
loudly, so that a mutation can't fall silent when the code moves on.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mqtt_im

from .run import Verdict, run

SECONDS = 14.0
TRIES = 3


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to break the server: each change is a file of the package, what stands there, and what stands there instead."""

    what: str
    sign: str
    """A regular expression that one of the faults must match: the checker sees what is wrong, not just that something is."""
    changes: tuple[tuple[str, str, str], ...]
    nodes: int = 0
    """On so many nodes; 0: one server on SQLite."""
    seconds: float = SECONDS
    """Of noise."""
    troubles: Mapping[str, int] | None = None
    """What befalls it, where that is not everything: see `servers.KINDS`."""

    def apply(self, package: Path) -> None:
        for file, old, new in self.changes:
            path = package / file
            text = path.read_text("utf-8")
            if text.count(old) != 1:
                raise LookupError(f"{file}: this stands there {text.count(old)} times, not once:\n{old}")
            path.write_text(text.replace(old, new), "utf-8")


_SLOW_DISK = (
    "store/ledger.py",
    "            engine.commit()\n",
    "            __import__('time').sleep(0.04)\n            engine.commit()\n",
)
"""Wider windows for what is wrong only between two moments: a disk that takes 40 ms for each commit."""

EARLY_ACK = (
    _SLOW_DISK,
    (
        "bridge/uplink.py",
        "            job = UplinkJob(self, channel, token, who, request)\n",
        "            self._done(channel, token)\n            job = UplinkJob(self, channel, 0, who, request)\n",
    ),
)
MUTATIONS: dict[str, Mutation] = {
    "nothing": Mutation("an unchanged copy, which must pass", "", ()),
    "slow-disk": Mutation("a slow disk alone, which must pass", "", (_SLOW_DISK,)),
    "early-ack": Mutation(
        "acknowledges before commit",
        "lost: .* was acknowledged",
        EARLY_ACK,
    ),
    "forgets-ids": Mutation(
        "forgets the ids of requests at restart",
        "is doubled",
        (
            (
                "core/rules/common.py",
                "    record = view.request(who.user, request.id)\n    if record is None:\n",
                "    record = view.request(who.user, request.id)\n    if record is None or record.ts < _STARTED:\n",
            ),
            ("core/rules/common.py", "def repeat(", "_STARTED = __import__('time').time() * 1000\n\n\ndef repeat("),
        ),
    ),
    "skips-seq": Mutation(
        "skips a number of a conversation now and then",
        "gap: these seqs are missing",
        (
            (
                "core/rules/sending.py",
                "        seq = found.head + 1 if found is not None else 1\n",
                "        seq = found.head + 1 + (found.head % 20 == 19) if found is not None else 1\n",
            ),
        ),
    ),
    "skips-pos": Mutation(
        "skips a number of an inbox now and then",
        "inbox of .*: gap: ",
        (
            (
                "core/rules/sending.py",
                "            pos = [sender_pos, recipient.head + 1]\n",
                "            pos = [sender_pos, recipient.head + 1 + (recipient.head % 50 == 49)]\n",
            ),
        ),
    ),
    "swaps-items": Mutation(
        "swaps two items of an inbox on their way to a device",
        "came as .*, stored is",
        (
            (
                "core/delivery.py",
                "        item = buffer[0]\n        pos, entry = item\n        unusual",
                (
                    "        (pos, entry), (after, other) = buffer[0], buffer[min(1, len(buffer) - 1)]\n"
                    "        if pos % 25 == 0 and not entry.first and not other.first:\n"
                    "            buffer[0], buffer[after - pos] = (pos, other), (after, entry)\n"
                    "        item = buffer[0]\n        pos, entry = item\n        unusual"
                ),
            ),
        ),
    ),
    "swaps-requests": Mutation(
        "commits two requests of a device in the other order",
        "published .* before .*, committed at",
        (
            (
                "store/ledger.py",
                "        for count, job in enumerate(batch):\n            before = engine.last\n",
                "        for count, job in enumerate(batch[::-1]):\n            before = engine.last\n",
            ),
        ),
    ),
    "early-cursor": Mutation(
        "moves a cursor when an item is written, not when it is acknowledged",
        "gap: everything up to",
        (
            (
                "core/delivery.py",
                "        self.next = last + 1\n        self.offered = taken\n",
                (
                    "        self.next = last + 1\n        self.offered = taken\n"
                    "        if not self.app:\n            self.cursor = last\n"
                ),
            ),
        ),
    ),
    "early-app-cursor": Mutation(
        "moves the cursor of a device with ack: app by its PUBACKs",
        "gap: everything up to",
        (
            (
                "core/delivery.py",
                "            if oldest.last > self.cursor and not self.app:\n",
                "            if oldest.last > self.cursor:\n",
            ),
        ),
    ),
    "old-cursor": Mutation(
        "lets cursors that were moved before a `hello` with `after` overrun it",
        "gap: everything up to",
        (("bridge/cursors.py", '        if void != "nothing":\n', '        if void == "never":\n'),),
    ),
    "deaf-hello": Mutation(
        "goes on where it was after a `hello` with `after`",
        "was said in a hello, and then came",
        (
            (
                "bridge/uplink.py",
                "            if request.after is not None:\n                channel.restart(request.after, state.head)\n",
                "",
            ),
        ),
    ),
    "early-delivery": Mutation(
        "delivers what is not yet committed",
        "came as .* (stored is|is not stored)",
        (
            (
                "store/ledger.py",
                "            engine.commit()\n",
                (
                    "            [self._finish_one(engine, engine, job) for job in batch if job.refusal is None]\n"
                    "            self._loop.call_soon_threadsafe(lambda: [job.uplink._bridge.tell(job) for job in batch"
                    " if hasattr(job, 'uplink') and job.commits])\n"
                    "            __import__('time').sleep(0.04)\n"
                    "            engine.commit()\n"
                ),
            ),
            (
                "bridge/uplink.py",
                "        if job.commits is not None or job.receipts is not None:\n            bridge.tell(job)\n",
                "",
            ),
        ),
    ),
}
SOUND = frozenset({"nothing", "slow-disk"})
"""Copies in which no promise is broken: the checker must find nothing there."""


def verdict_on(mutation: Mutation, seed: int, tries: int) -> tuple[Verdict, bool]:
    """The verdict on a broken copy, and whether its sign was seen: of the first run that shows it, else of the last one."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder) / "mqtt_im"
        shutil.copytree(Path(mqtt_im.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
        mutation.apply(copy)
        for attempt in range(tries):
            verdict = run(
                seed + attempt,
                mutation.seconds,
                environment={"PYTHONPATH": folder},
                kill_every_s=1.5,
                nodes=mutation.nodes,
                kinds=mutation.troubles,
            )
            seen = [fault for fault in verdict.faults if re.search(mutation.sign, fault)]
            if seen:
                # What it was caught by comes first.
                return replace(verdict, faults=[*seen, *(fault for fault in verdict.faults if fault not in seen)]), True
        return verdict, False
