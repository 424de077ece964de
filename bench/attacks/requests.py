"""Requests without end: each is one that any client may make, and costs the server more than its sender."""

from __future__ import annotations

import contextlib
import itertools
import zlib

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, MEMBERS, PREFIX, STAR, WINDOW, Attack, Foe, Ports, at_once, forever, ids

_ids = ids()


def conversations(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.packet("convs", limit=1) for _ in range(WINDOW))))


def pages(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.packet("sync", after=0) for _ in range(WINDOW))))


def searches(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.packet("search", query="e") for _ in range(WINDOW))))


def crowd(ports: Ports) -> None:
    def burst(foe: Foe) -> None:
        foe.send(b"".join(foe.packet("send", id=next(_ids), to=GROUP, body="all of you") for _ in range(WINDOW)))

    forever(ports.mqtt, burst)


def typing(ports: Ports) -> None:
    on = itertools.cycle((True, False))
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.packet("typing", to=GROUP, on=next(on)) for _ in range(WINDOW))))


def groups(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.ask("group.create", id=next(_ids), members=MEMBERS))


def _bodies(ports: Ports, body: str) -> None:
    def send(foe: Foe) -> None:
        foe.send(foe.raw(b'{"op":"send","id":"%b","to":"bob","body":%b}' % (next(_ids).encode(), body.encode())))

    forever(ports.mqtt, send)


def lists(ports: Ports) -> None:
    _bodies(ports, "[" + ",".join(["[]"] * 20_000) + "]")


def depths(ports: Ports) -> None:
    _bodies(ports, "[" * 30_000 + "]" * 30_000)


def numbers(ports: Ports) -> None:
    _bodies(ports, "[" + "9" * 60_000 + "]")


def binaries(ports: Ports) -> None:
    head = b"\x84\xa2op\xa4send\xa2id\xa1x\xa2to\xa3bob\xa4body\xdc\xea\x60"
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(head + b"\x90" * 60_000)))


def wrong_fields(ports: Ports) -> None:
    rest = ",".join(["[]"] * 80_000)
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(b'{"op":"send","id":"x","to":5,"zz":[%b]}' % rest.encode())))


def reports(ports: Ports) -> None:
    forever(
        ports.mqtt,
        lambda foe: foe.ask("report", id=next(_ids), conv=f"{FOE}:{FOE}", seq=1, state="executed", result="x" * 60_000),
    )


def edits(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.ask("edit", id=next(_ids), conv=f"{FOE}:{FOE}", seq=1, body="x" * 1_000))


def large_bodies(ports: Ports) -> None:
    forever(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to="nobody-in-particular", body="x" * 60_000))


def bombs(ports: Ports) -> None:
    """What is small and unpacks to as much as is let through."""
    payload = zlib.compress(b'{"op":"send","to":"bob","body":"' + b"x" * 250_000 + b'"}', 9)
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.raw(payload) for _ in range(WINDOW))))


def starts_over(ports: Ports) -> None:
    """A device that has everything, and asks for all of it again."""
    forever(ports.mqtt, lambda foe: foe.ask("hello", after=0, batch=True, zip=True))


def histories(ports: Ports) -> None:
    """Large pages, packed and translated, by as many devices as a user may have connected."""

    def read(foe: Foe) -> None:
        foe.ask("hello", codec="msgpack", zip=True)
        while True:
            foe.send(b"".join(foe.packet("history", conv=f"{FOE}:{FOE}") for _ in range(WINDOW)))

    at_once(15, lambda: forever(ports.mqtt, read))


def conversations_to_the_end(ports: Ports) -> None:
    """Every conversation, page by page, from many places at once."""
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.packet("convs", limit=500) for _ in range(WINDOW))))


def letters(ports: Ports) -> None:
    """One letter that is everywhere, in each conversation of its own, from many devices."""
    numbers = itertools.count()

    def ask(foe: Foe) -> None:
        for _ in range(WINDOW):
            foe.ask("search", query="h", conv=f"{FOE}:user{next(numbers) % 5_000}")

    at_once(8, lambda: forever(ports.mqtt, ask))


def reactions(ports: Ports) -> None:
    """One message of a large group, which everybody is told of."""
    faces = itertools.cycle(chr(0x1F600 + number) for number in range(64))
    forever(ports.mqtt, lambda foe: foe.ask("react", id=next(_ids), conv=GROUP, seq=1, emoji=next(faces)))


def changes(ports: Ports) -> None:
    """All members leave a group, and come again."""
    forever(
        ports.mqtt,
        lambda foe: foe.send(
            foe.packet("group.remove", id=next(_ids), group=GROUP, members=MEMBERS[1:4_998])
            + foe.packet("group.add", id=next(_ids), group=GROUP, members=MEMBERS[1:4_998])
        ),
    )


def members(ports: Ports) -> None:
    """Who is in a large group, from its beginning."""
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.packet("group.info", group=GROUP, limit=500) for _ in range(WINDOW))))


def mentions(ports: Ports) -> None:
    """As many names as a packet has room for."""
    names = [f"member{number}" for number in range(4_990)]
    forever(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="you", mentions=names))


def marks(ports: Ports) -> None:
    """How far a large group, and many conversations, are read."""
    numbers = itertools.count()

    def read(foe: Foe) -> None:
        for _ in range(WINDOW):
            foe.ask("read", conv=f"{FOE}:user{next(numbers) % 5_000}", seq=1)

    forever(ports.mqtt, read)


def blocks(ports: Ports) -> None:
    """Blocked and let in again: whom the watched one blocks, sees nothing any more."""

    def churn(foe: Foe) -> None:
        foe.ask("block", id=next(_ids), user="member1")
        foe.ask("unblock", id=next(_ids), user="member1")
        foe.ask("mute", id=next(_ids), conv=GROUP, until=9_999_999_999_999)
        foe.ask("settings", id=next(_ids), presence=False)
        foe.ask("settings", id=next(_ids), presence=True)

    forever(ports.mqtt, churn, user=STAR)


def devices(ports: Ports) -> None:
    """Registered and forgotten, and asked for."""
    numbers = itertools.count()

    def churn(foe: Foe) -> None:
        with contextlib.suppress(OSError):
            other = Foe(ports.mqtt, device=f"churn{next(numbers) % 90}")
            other.socket.close()
        foe.send(b"".join(foe.packet("devices") for _ in range(WINDOW)))
        foe.ask("device.forget", id=next(_ids), device=f"churn{next(numbers) % 90}")

    forever(ports.mqtt, churn)


def replaced(ports: Ports) -> None:
    """Messages that replace the one before, and some that have no time to be read."""
    forever(
        ports.mqtt,
        lambda foe: foe.send(
            foe.packet("send", id=next(_ids), to=GROUP, body="now", key="k", push={"title": "x" * 4_000})
            + foe.packet("send", id=next(_ids), to="bob-away", body="x" * 1_000, key="k", ttl=1)
        ),
    )


def large_keys(ports: Ports) -> None:
    """One of the largest packets: what is not the body."""
    forever(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to="bob-away", body=1, push={"x": ["y"] * 40_000}))


def late_replies(ports: Ports) -> None:
    """Pages for who takes one packet at a time, and none of them."""

    def ask(foe: Foe) -> None:
        up = f"{PREFIX}/{FOE}/{foe.device}/up"
        payload = b'{"op":"sync","after":0}'
        foe.send(b"".join(foe.publish(up, payload, qos=0) for _ in range(WINDOW)))

    how = {"version": wire.V5, "properties": b"\x21\0\1"}
    at_once(8, lambda: forever(ports.mqtt, ask, **how))


REQUESTS: dict[str, Attack] = {
    "conversations": conversations,
    "pages of 60 KB items": pages,
    "searches": searches,
    "messages to a crowd": crowd,
    "typing to a crowd": typing,
    "groups of 5,000": groups,
    "bodies of empty lists": lists,
    "bodies of great depth": depths,
    "bodies of huge numbers": numbers,
    "MessagePack of lists": binaries,
    "wrong fields behind 240 KB": wrong_fields,
    "reports of 60 KB": reports,
    "edits": edits,
    "large bodies": large_bodies,
    "zlib bombs": bombs,
    "hello from the beginning": starts_over,
    "history by 15 devices": histories,
    "conversations, 500 a page": conversations_to_the_end,
    "one letter in each conversation": letters,
    "reactions in a crowd": reactions,
    "a crowd leaves and comes": changes,
    "members of a crowd": members,
    "5,000 mentions": mentions,
    "read marks": marks,
    "blocks and settings": blocks,
    "devices": devices,
    "replaced messages": replaced,
    "240 KB beside the body": large_keys,
    "pages that are never read": late_replies,
}
