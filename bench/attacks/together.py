"""Twenty accounts, each at its full rate, doing the dearest thing that it may."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable

from bench.attacks import wire
from bench.attacks.foe import GROUP, MEMBERS, PREFIX, WINDOW, Attack, Foe, Ports, at_once, forever, ids

_ids = ids()
ACCOUNTS = MEMBERS[2_000:2_020]
"""Members of the large group whom nobody else connects as."""
CONNECTIONS = 16
"""As many as one user may have."""


def all_of_them(ports: Ports, do: Callable[[Foe], None], **how: object) -> None:
    """Each of the accounts does it, on one connection after the other."""
    threads = [
        threading.Thread(target=forever, args=(ports.mqtt, do), kwargs={**how, "user": name}, daemon=True) for name in ACCOUNTS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _window(op: str, **fields: object) -> Callable[[Foe], None]:
    return lambda foe: foe.send(b"".join(foe.packet(op, **fields) for _ in range(WINDOW)))


def to_a_crowd(ports: Ports) -> None:
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="all of you"))


def typing(ports: Ports) -> None:
    on = itertools.cycle((True, False))
    all_of_them(ports, lambda foe: foe.ask("typing", to=GROUP, on=next(on)))


def groups(ports: Ports) -> None:
    all_of_them(ports, lambda foe: foe.ask("group.create", id=next(_ids), members=MEMBERS[:4_990]))


def large_bodies(ports: Ports) -> None:
    """To each other, and each has two devices that read."""
    others = itertools.cycle(ACCOUNTS)
    for name in ACCOUNTS:
        threading.Thread(target=forever, args=(ports.mqtt, lambda _: time.sleep(60)), kwargs={"user": name}, daemon=True).start()
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=next(others), body="x" * 60_000))


def searches(ports: Ports) -> None:
    """For what all of them have in one group."""
    all_of_them(ports, _window("search", query="all you"))


def conversations(ports: Ports) -> None:
    all_of_them(ports, _window("convs", limit=500))


def presences(ports: Ports) -> None:
    filters = [f"{PREFIX}/{name}/presence" for name in MEMBERS[:500]]
    all_of_them(ports, lambda foe: foe.send(foe.subscription(filters)))


def reactions(ports: Ports) -> None:
    """On one message of a large group, which is taken back and made again."""
    faces = itertools.cycle(("", "\U0001f600"))
    all_of_them(ports, lambda foe: foe.ask("react", id=next(_ids), conv=GROUP, seq=1, emoji=next(faces)))


def start_over(ports: Ports) -> None:
    all_of_them(ports, lambda foe: foe.ask("hello", after=0, batch=True, zip=True, codec="msgpack"))


def read_nothing(ports: Ports) -> None:
    """Pages and plain messages for as many connections as they may have, none of which reads."""
    numbers = itertools.count()

    def ask(foe: Foe) -> None:
        foe.send(foe.subscription([f"plain/unread/{foe.user}"]))
        foe.ask("send", id=next(_ids), to=foe.user, body="x" * 60_000)
        while True:
            foe.send(foe.packet("sync", after=0) + foe.publish(f"plain/unread/{foe.user}", b"x" * 200_000, qos=0))

    def work() -> None:
        user = ACCOUNTS[next(numbers) % len(ACCOUNTS)]
        forever(ports.mqtt, ask, user=user, reads=False)

    at_once(CONNECTIONS * len(ACCOUNTS), work)


def never_end(ports: Ports) -> None:
    """Packets of 250 KB, on as many connections as they may have, that come but for the last byte."""
    there: list[Foe] = []
    while True:
        for name in ACCOUNTS:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, user=name, listens=False, reads=False)
                foe.socket.settimeout(1)
                there.append(foe)
                foe.send(foe.publish("plain/never", b"x" * 250_000)[:-1])
        if len(there) > CONNECTIONS * len(ACCOUNTS):
            time.sleep(1)


def queues(ports: Ports) -> None:
    """Kept sessions whose clients are away, and for whom as much waits as may."""
    kept = b"\x11\0\0\xff\xff"
    for name in ACCOUNTS:
        for number in range(4):
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, name, f"q{number}", listens=False, version=wire.V5, clean=False, properties=kept)
                foe.send(foe.subscription([f"plain/queue/{name}"], 1))
                time.sleep(0.01)
                foe.socket.close()
    all_of_them(ports, lambda foe: foe.send(foe.publish(f"plain/queue/{foe.user}", b"x" * 60_000)))


TOGETHER: dict[str, Attack] = {
    "20 accounts: messages to a crowd": to_a_crowd,
    "20 accounts: typing to a crowd": typing,
    "20 accounts: groups of 5,000": groups,
    "20 accounts: large bodies": large_bodies,
    "20 accounts: searches": searches,
    "20 accounts: conversations": conversations,
    "20 accounts: 500 presences": presences,
    "20 accounts: reactions on one message": reactions,
    "20 accounts: hello from the beginning": start_over,
    "20 accounts: nothing is read": read_nothing,
    "20 accounts: packets that never end": never_end,
    "20 accounts: queues of kept sessions": queues,
}
