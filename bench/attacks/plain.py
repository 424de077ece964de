"""Plain topics and sessions: trees of filters, what is retained, queues, shares."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time

from bench.attacks import wire
from bench.attacks.foe import FOE, PREFIX, WINDOW, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.together import ACCOUNTS, all_of_them

_ids = ids()
_KEPT = b"\x11\0\0\xff\xff"
_MAX_LEVELS = 128


def _unsubscription(filters: list[str]) -> bytes:
    body = b"\0\1" + b"".join(map(wire.text, filters))
    return b"\xa2" + wire.remaining_length(len(body)) + body


def long_topics(ports: Ports) -> None:
    """Topics of 60 KB, each another one."""
    forever(ports.mqtt, lambda foe: foe.send(foe.publish(f"plain/{'x' * 60_000}{next(_ids)}", b"", qos=0)))


def branches(ports: Ports) -> None:
    """Filters that part at each level and come to nothing, and messages that follow all of them nearly to the end."""
    depth = 13
    filters = ["plain/" + "/".join(choice) + "/end" for choice in itertools.product("+x", repeat=depth)]
    for first in range(0, len(filters), 990):
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, listens=False)
            foe.send(foe.subscription(filters[first : first + 495]) + foe.subscription(filters[first + 495 : first + 990]))
    message = "plain/" + "/".join("x" * depth) + "/other"
    forever(ports.mqtt, lambda foe: foe.send(foe.publish(message, b"x", qos=0) * WINDOW), user=ACCOUNTS[0])


def deep_filters(ports: Ports) -> None:
    """As many filters of as many levels as there may be, on as many connections as there may be."""

    def work() -> None:
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, user=ACCOUNTS[next(numbers) % 20], listens=False)
            for _ in range(100):
                foe.send(foe.subscription([f"plain/{next(_ids)}{'/+' * (_MAX_LEVELS - 2)}" for _ in range(10)]))
            time.sleep(3_600)

    numbers = itertools.count()
    at_once(300, work)


def deep_retained(ports: Ports) -> None:
    """As many retained messages as there may be, each with as many levels of its own as there may be."""
    numbers = itertools.count()

    def keep(foe: Foe) -> None:
        topic = f"plain/{next(numbers) % 10_000}{'/a' * (_MAX_LEVELS - 2)}"
        foe.send(foe.publish(topic, b"x", qos=0, retain=True))

    all_of_them(ports, keep)


def looks_at_all(ports: Ports) -> None:
    """Filters that go through all that is retained, and match none of it."""
    with contextlib.suppress(OSError):
        foe = Foe(ports.mqtt)
        for number in range(10_000):
            foe.send(foe.publish(f"plain/l/{number}/x", b"x", qos=0, retain=True))
    filters = [f"plain/+/+/no{number}" for number in range(990)]
    forever(ports.mqtt, lambda foe: foe.send(foe.subscription(filters) + _unsubscription(filters)), user=ACCOUNTS[0])


def many_filters(ports: Ports) -> None:
    """All that a packet has room for, in a SUBSCRIBE."""
    packet_filters = [f"{number:x}" for number in range(30_000)]
    forever(ports.mqtt, lambda foe: foe.send(foe.subscription(packet_filters)))


def many_left(ports: Ports) -> None:
    """The same in an UNSUBSCRIBE."""
    packet = _unsubscription([f"{number:x}" for number in range(36_000)])
    forever(ports.mqtt, lambda foe: foe.send(packet))


def kept_filters(ports: Ports) -> None:
    """Kept sessions with as many filters as there may be, one of which goes and comes."""
    numbers = itertools.count()

    def change(foe: Foe) -> None:
        for first in range(0, 900, 100):
            foe.send(foe.subscription([f"plain/{'x' * 200}/{number}" for number in range(first, first + 100)]))
        while True:
            foe.send(_unsubscription(["plain/one"]) + foe.subscription(["plain/one"], 1))

    at_once(15, lambda: forever(ports.mqtt, change, device=f"many{next(numbers)}", clean=False))


def kept_crowd(ports: Ports) -> None:
    """A plain topic to which 3,000 kept sessions have subscribed, whose clients are away."""
    come = itertools.count()

    def leave() -> None:
        while (number := next(come)) < 3_000:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, f"fan{number // 16}", f"k{number % 16}", listens=False, reads=False, clean=False)
                foe.send(foe.subscription(["plain/kept"], 1))
                foe.socket.recv(100)
                foe.socket.close()

    for _ in range(4):
        threading.Thread(target=leave, daemon=True).start()
    forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/kept", b"x" * 1_000)))


def one_kept_crowd(ports: Ports) -> None:
    """The same with 250 sessions of one user and messages of 250 KB."""
    for number in range(250):
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, FOE, f"k{number}", listens=False, reads=False, clean=False)
            foe.send(foe.subscription(["plain/own"], 1))
            foe.socket.recv(100)
            foe.socket.close()
    forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/own", b"x" * 250_000)))


def queues_dropped(ports: Ports) -> None:
    """A kept session that fills its queue, and begins anew."""

    def work(foe: Foe) -> None:
        with contextlib.suppress(OSError):
            for clean in (False, True):
                other = Foe(ports.mqtt, foe.user, "queue", listens=False, reads=False, clean=clean)
                other.send(other.subscription([f"plain/drop/{foe.user}"], 1))
                other.socket.recv(10)
                other.socket.close()
                if not clean:
                    foe.send(foe.publish(f"plain/drop/{foe.user}", b"x" * 500) * 300)

    all_of_them(ports, work)


def unacknowledged(ports: Ports) -> None:
    """Members of a share who take messages, acknowledge none, and go."""

    def member() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, ACCOUNTS[next(numbers) % 20], version=wire.V5, properties=b"\x11\0\0\0\1", clean=False)
                foe.send(foe.subscription(["$share/s/plain/share"], 2))
                time.sleep(0.2)
                foe.socket.close()

    numbers = itertools.count()
    for _ in range(20):
        threading.Thread(target=member, daemon=True).start()
    forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/share", b"x" * 5_000)))


def one_at_a_time(ports: Ports) -> None:
    """Devices that take one packet, and never say so; what comes for them waits."""
    how = {"version": wire.V5, "properties": b"\x21\0\1"}

    def ask(foe: Foe) -> None:
        foe.send(foe.subscription(["plain/slow"], 1))
        while True:
            foe.ask("hello", after=0)
            foe.ask("convs", limit=500)
            foe.send(foe.publish("plain/slow", b"x" * 5_000))

    at_once(15, lambda: forever(ports.mqtt, ask, **how))


def kept_and_taken_away(ports: Ports) -> None:
    """Retained messages that are there, and are not."""
    numbers = itertools.count()

    def work(foe: Foe) -> None:
        topic = f"plain/t/{next(numbers) % 10_000}"
        foe.send(foe.publish(topic, b"x" * 100, qos=0, retain=True) + foe.publish(topic, b"", qos=0, retain=True))

    all_of_them(ports, work)


def exactly_once(ports: Ports) -> None:
    """QoS 2 to its end, each step of which is on disk."""

    def work(foe: Foe) -> None:
        for number in range(1, WINDOW):
            foe.send(wire.publish("plain/once", b"x", number, qos=2) + b"\x62\2" + number.to_bytes(2, "big"))

    all_of_them(ports, work, clean=False)


def churn(ports: Ports) -> None:
    """Connections that say nothing, and go."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", ports.mqtt), timeout=30).close()

    at_once(8, work)


def all_together(ports: Ports) -> None:
    """Twenty accounts send plain messages to each other, all of whom have subscribed to everything."""
    filters = ["plain/#", "plain/+", "plain/all"]

    def work(foe: Foe) -> None:
        foe.send(foe.subscription(filters, 1))
        while True:
            foe.send(foe.publish("plain/all", b"x" * 2_000))

    all_of_them(ports, work)


def own_filters(ports: Ports) -> None:
    """Filters under the prefix, which are worked out anew with each change."""
    filters = [f"{PREFIX}/{FOE}/{number}/+" for number in range(980)]

    def work(foe: Foe) -> None:
        foe.send(foe.subscription(filters))
        while True:
            foe.send(_unsubscription([filters[0]]) + foe.subscription([filters[0]]))

    forever(ports.mqtt, work)


PLAIN: dict[str, Attack] = {
    "topics of 60 KB": long_topics,
    "filters that part at each level": branches,
    "filters of 128 levels": deep_filters,
    "retained topics of 128 levels": deep_retained,
    "filters that look at all that is retained": looks_at_all,
    "SUBSCRIBE of 30,000 filters": many_filters,
    "UNSUBSCRIBE of 36,000 filters": many_left,
    "kept sessions of 900 filters, changed": kept_filters,
    "a plain topic with 3,000 kept sessions": kept_crowd,
    "250 kept sessions, messages of 250 KB": one_kept_crowd,
    "queues that are filled and dropped": queues_dropped,
    "a share that acknowledges nothing": unacknowledged,
    "devices that take one packet": one_at_a_time,
    "retained and taken away": kept_and_taken_away,
    "QoS 2 to its end": exactly_once,
    "connections that say nothing, and go": churn,
    "20 accounts: plain messages to each other": all_together,
    "980 own filters, one of which changes": own_filters,
}
