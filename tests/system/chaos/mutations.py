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
from .world import HELLOS

SECONDS = 14.0
REQUESTS = 900
"""As many as there are in that time on a machine that has nothing else to do."""
TRIES = 3
KILLS = 4
"""So often at least something befalls the nodes, however long a busy machine takes to start one again."""


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
    hellos: float = HELLOS
    """How likely devices say where they stand, where that is what is broken."""

    def apply(self, package: Path) -> None:
        for file, old, new in self.changes:
            path = package / file
            text = path.read_text("utf-8")
            if text.count(old) != 1:
                raise LookupError(f"{file}: this stands there {text.count(old)} times, not once:\n{old}")
            path.write_text(text.replace(old, new), "utf-8")


_SLOW_DISK = (
    "store/threads/writer.py",
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


def _before(file: str, line: str, most_s: float) -> tuple[str, str, str]:
    """A pause before a line: of up to so many seconds, most often none."""
    indent = " " * (len(line) - len(line.lstrip()))
    return file, line, f"{indent}__import__('time').sleep(__import__('random').random() ** 10 * {most_s})\n{line}"


_SLOW_LOOP = _before("bridge/telling.py", "        if job.commits is not None:\n            for commit in job.commits:\n", 0.3)
"""An event loop that stands still now and then, before devices are told what was committed."""
_SLOW_THREADS = (
    _SLOW_LOOP,
    ("store/sqlite/flusher.py", "FLUSH_AFTER_S = 3.0\n", "FLUSH_AFTER_S = 0.1\n"),
    ("store/sqlite/flusher.py", "SLICE_ROWS = 250\n", "SLICE_ROWS = 20\n"),
    _before("store/sqlite/flusher.py", "        self._projection.begin()\n", 0.1),
    _before("store/sqlite/flusher.py", "        with self._gate:\n            state.thaw()\n", 0.1),
    _before("store/sqlite/gate.py", "            if self._snapshot and not", 0.1),
    _before("store/threads/reader.py", "            done = self._reading.run(", 0.1),
    _before("store/threads/writer.py", "        for start in range(0, len(batch), TOLD_AT_ONCE):\n", 0.1),
)
"""Pauses wherever two threads may see each other's work half done: in a read, before it, between a freeze and its bulk write,
between that and the end of the frozen generation, between a commit and its report."""

_HELLOS = 0.1

MUTATIONS: dict[str, Mutation] = {
    "nothing": Mutation("an unchanged copy, which must pass", "", ()),
    "slow-disk": Mutation("a slow disk alone, which must pass", "", (_SLOW_DISK,)),
    "slow-threads": Mutation("threads and a loop that pause in the worst places, which must pass", "", _SLOW_THREADS),
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
                "        item = buffer[0]\n        pos, entry = item\n        flights",
                (
                    "        (pos, entry), (after, other) = buffer[0], buffer[min(1, len(buffer) - 1)]\n"
                    "        if pos % 25 == 0 and not entry.first and not other.first:\n"
                    "            buffer[0], buffer[after - pos] = (pos, other), (after, entry)\n"
                    "        item = buffer[0]\n        pos, entry = item\n        flights"
                ),
            ),
        ),
    ),
    "swaps-requests": Mutation(
        "commits two requests of a device in the other order",
        "published .* before .*, committed at",
        (
            (
                "store/threads/writer.py",
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
                "core/offered.py",
                "            if oldest.last > self.cursor and not self.app:\n",
                "            if oldest.last > self.cursor:\n",
            ),
        ),
    ),
    "old-cursor": Mutation(
        "writes cursors that are moved while a `hello` with `after` is under way, so that they overrun it",
        "gap: everything up to",
        (
            _SLOW_DISK,
            ("bridge/cursors.py", "DELAY_S: Final = 0.2\n", "DELAY_S: Final = 0.02\n"),
            (
                "bridge/cursors.py",
                "        for key in self._moved:\n            if key not in self._held:\n",
                "        for key in self._moved:\n            if key:\n",
            ),
        ),
        hellos=_HELLOS,
    ),
    "late-puback": Mutation(
        "takes the PUBACK of what was offered before a `hello` with `after` for that of what is offered since",
        "gap: everything up to",
        (("core/offered.py", "            if twice:\n", "            if not packet_id:\n"),),
        hellos=_HELLOS,
    ),
    "app-gap": Mutation(
        "offers an app nothing again that had its PUBACK, though the app has not said that it has it",
        "on the same connection",
        (("core/delivery.py", "            if self.app and self._again[self.next].acked:", "            if not self.next:"),),
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
                "store/threads/writer.py",
                "            engine.commit()\n",
                (
                    "            [self._finish_one(engine, engine, job) for job in batch if job.refusal is None]\n"
                    "            self._soon(lambda: [job.uplink._bridge.telling.tell(job) for job in batch"
                    " if hasattr(job, 'uplink') and job.commits])\n"
                    "            __import__('time').sleep(0.04)\n"
                    "            engine.commit()\n"
                ),
            ),
            (
                "bridge/uplink.py",
                "        if job.commits is not None or job.receipts is not None:\n            bridge.telling.tell(job)\n",
                "",
            ),
        ),
    ),
}
SOUND = frozenset({"nothing", "slow-disk", "slow-threads"})
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
                kills=KILLS if mutation.nodes else 0,
                requests=0 if mutation.nodes else REQUESTS,
                nodes=mutation.nodes,
                kinds=mutation.troubles,
                hellos=mutation.hellos,
            )
            seen = [fault for fault in verdict.faults if re.search(mutation.sign, fault)]
            if seen:
                # What it was caught by comes first.
                return replace(verdict, faults=[*seen, *(fault for fault in verdict.faults if fault not in seen)]), True
        return verdict, False
