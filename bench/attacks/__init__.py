"""What one hostile client can do: `python -m bench.attacks NAME` with the ports of `Ports`, does it without end.

In a process of its own, so that it costs nobody's measurement anything but the server's time. `hostile` measures what a
well-behaved pair has of it, and has prepared a store with many conversations and a large group.
"""

from bench.attacks.doors import HOOKED, OPERATED, PROXIED, TOKENS
from bench.attacks.edges import EDGES
from bench.attacks.foe import FOE, GROUP, MEMBERS, PASSWORD, STAR, Attack, Ports
from bench.attacks.further import FURTHER
from bench.attacks.groups import GROUPS
from bench.attacks.lengths import LENGTHS
from bench.attacks.many import MANY
from bench.attacks.mixed import MIXED
from bench.attacks.odd import ODD
from bench.attacks.packets import PACKETS
from bench.attacks.plain import PLAIN
from bench.attacks.requests import REQUESTS
from bench.attacks.sockets import SOCKETS
from bench.attacks.strange import STRANGE
from bench.attacks.together import TOGETHER
from bench.attacks.values import VALUES
from bench.attacks.web import WEB
from bench.attacks.weights import WEIGHTS

ATTACKS: dict[str, Attack] = {
    **REQUESTS,
    **PACKETS,
    **FURTHER,
    **MANY,
    **TOGETHER,
    **GROUPS,
    **PLAIN,
    **WEB,
    **SOCKETS,
    **WEIGHTS,
    **ODD,
    **STRANGE,
    **MIXED,
    **VALUES,
    **LENGTHS,
    **EDGES,
    **TOKENS,
    **PROXIED,
    **HOOKED,
    **OPERATED,
}

__all__ = ["ATTACKS", "FOE", "GROUP", "MEMBERS", "PASSWORD", "STAR", "WEB", "Attack", "Ports"]
