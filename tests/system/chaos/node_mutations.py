"""Broken copies of the server that show only where there are several nodes; see `mutations`."""

from __future__ import annotations

from .mutations import EARLY_ACK, Mutation

_LOCKS = ("store/postgres/tables.py", "ORDER BY uid FOR NO KEY UPDATE", "ORDER BY uid")
_GROUP_LOCKS = ("store/postgres/tables.py", "ORDER BY cid FOR NO KEY UPDATE", "ORDER BY cid")
_TWICE = ("store/postgres/schema.py", "CREATE UNIQUE INDEX log_seq", "CREATE INDEX log_seq")
"""The database itself takes a number that was given twice."""
_DEAF = (
    "bridge/neighbourhood.py",
    "        users, groups = fields\n        for user in users:\n",
    "        users, groups = fields\n        for user in users[:0]:\n",
)
"""No word that an inbox has grown is heard, unless it is about a large group."""
_LARGE = ("store/postgres/large.py", "MEMBERS: Final = 200\n", "MEMBERS: Final = 2\n")
"""Every group is a large one, whose members take what it tells by and by."""
_SLOW_TO_NOTICE = (
    "cluster/bus.py",
    "            self._call(self._declared_dead, over.set)\n",
    "            time.sleep(2.0)\n            self._call(self._declared_dead, over.set)\n",
)
"""A node that was declared dead goes on for two seconds before it takes notice of that."""

_TAKES = (
    "transport/embedded/sessions/claiming.py",
    'answered = await self._neighbours.questions.ask("release", holder.incarnation, *key, holder.gen, clean)\n',
    "answered = True\n",
)
"""A node that a device comes to asks no other one to let go of it."""

NODE_MUTATIONS: dict[str, Mutation] = {
    "nodes": Mutation("an unchanged copy at three nodes, which must pass", "", (), nodes=3),
    "lost-wake-ups": Mutation("no node hears that an inbox has grown, and all sweep: must pass", "", (_DEAF,), nodes=3),
    "slow-to-notice": Mutation(
        "a node that was declared dead notices it late: must pass",
        "",
        (_SLOW_TO_NOTICE,),
        nodes=2,
        seconds=30.0,
        troubles={"a node frozen": 1},
    ),
    "large": Mutation("groups of three are large ones, at three nodes: must pass", "", (_LARGE,), nodes=3, seconds=30.0),
    "large-unheard": Mutation(
        "the same, where no node takes notice that a group has grown, and all sweep: must pass",
        "",
        (
            _LARGE,
            ("bridge/neighbourhood.py", "            self._bridge.pulling.grown(group)\n", "            pass\n"),
            ("bridge/telling.py", "                    self._bridge.pulling.grown(record.conv)", "                    pass"),
        ),
        nodes=3,
        seconds=30.0,
    ),
    "no-locks": Mutation(
        "gives out `seq` and `pos` without a lock",
        "two messages|twice|gap|lost",
        (_LOCKS, _GROUP_LOCKS, _TWICE),
        nodes=3,
        troubles={"a node killed": 1},
    ),
    "early-ack-nodes": Mutation(
        "acknowledges before commit", "lost: .* was acknowledged", EARLY_ACK, nodes=3, troubles={"a node killed": 1}
    ),
    "no-take-over": Mutation(
        "asks no other node to let go of a device that connects",
        "nobody sent .*late|came again as",
        (_TAKES,),
        nodes=3,
        troubles={"a node killed": 1},
    ),
    "no-sweep": Mutation(
        "does not look at inboxes by itself, and no node hears that one has grown",
        "did not settle",
        (_DEAF, ("bridge/neighbourhood.py", "SWEEP_S: Final = 3.0\n", "SWEEP_S: Final = 1e6\n")),
        nodes=3,
        troubles={"a node killed": 1},
    ),
    "older-cursor": Mutation(
        "lets the older one of two connections, at another node, move the cursor",
        "gap: everything up to|the cursor stands at",
        (
            _TAKES,
            (
                "store/postgres/state.py",
                "        return self.server_of(user, device) in (0, self._fence.server)\n",
                "        return True\n",
            ),
        ),
        nodes=3,
        seconds=30.0,
        troubles={"a node killed": 1},
    ),
    "in-a-hurry": Mutation(
        "makes a node one again that was declared dead, before it has let go of what it had",
        "is doubled|nobody sent .*late|committed at pos",
        (
            (
                "cluster/bus.py",
                "            self._call(self._declared_dead, over.set)\n",
                "            self._call(self._declared_dead, over.set)\n            return True\n",
            ),
        ),
        nodes=2,
        seconds=30.0,
        troubles={"a node frozen": 1},
    ),
    "no-fence": Mutation(
        "lets a node commit that was declared dead",
        "is doubled|nobody sent .*late",
        (
            _SLOW_TO_NOTICE,
            ("store/postgres/node.py", "SELECT 1 / count(*) FROM mine", "SELECT 1 FROM (SELECT count(*) FROM mine) m"),
        ),
        nodes=2,
        seconds=30.0,
        troubles={"a node frozen": 1},
    ),
}
NODE_SOUND = frozenset({"nodes", "lost-wake-ups", "slow-to-notice", "large", "large-unheard"})
"""Of them those in which no promise is broken."""
