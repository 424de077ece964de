"""What is done in groups and conversations, back and forth, or to what nobody may see."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

from bench.attacks.foe import FOE, GROUP, MEMBERS, WINDOW, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.together import ACCOUNTS, all_of_them

_ids = ids()


def edits(ports: Ports) -> None:
    """Messages to a crowd, each edited at once, and taken back."""
    numbers = itertools.count(2)

    def work(foe: Foe) -> None:
        seq = next(numbers)
        foe.ask("send", id=next(_ids), to=GROUP, body="now")
        foe.ask("edit", id=next(_ids), conv=GROUP, seq=seq, body="then")
        foe.ask("recall", id=next(_ids), conv=GROUP, seq=seq)

    forever(ports.mqtt, work)


def names_and_roles(ports: Ports) -> None:
    """A large group that has another name, and other admins, all the time."""
    roles = itertools.cycle(("admin", "member"))

    def work(foe: Foe) -> None:
        foe.ask("group.rename", id=next(_ids), group=GROUP, name=next(_ids) + "x" * 200)
        foe.ask("group.role", id=next(_ids), group=GROUP, user=MEMBERS[3], role=next(roles))

    forever(ports.mqtt, work)


def admins(ports: Ports) -> None:
    """Twenty admins of a large group add and remove the same thousand members."""
    with contextlib.suppress(OSError):
        owner = Foe(ports.mqtt)
        for name in ACCOUNTS:
            owner.ask("group.role", id=next(_ids), group=GROUP, user=name, role="admin")
        time.sleep(0.5)
    some = MEMBERS[1_000:2_000]

    def work(foe: Foe) -> None:
        foe.ask("group.remove", id=next(_ids), group=GROUP, members=some)
        foe.ask("group.add", id=next(_ids), group=GROUP, members=some)

    all_of_them(ports, work)


def receipts(ports: Ports) -> None:
    """How far twenty members of a group of 200 have read, message by message; the others are told of each."""
    group, count = "#receipts", 2_000
    with contextlib.suppress(OSError):
        owner = Foe(ports.mqtt)
        owner.ask("group.create", id=next(_ids), group=group, members=[*MEMBERS[:179], *ACCOUNTS])
    sending = threading.Thread(
        target=forever, args=(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to=group, body="read this")), daemon=True
    )
    sending.start()
    numbers = {name: itertools.count(1) for name in ACCOUNTS}
    all_of_them(ports, lambda foe: foe.ask("read", conv=group, seq=1 + next(numbers[foe.user]) % count))


def expiring(ports: Ports) -> None:
    """Messages to a crowd that nobody has the time to read."""
    forever(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="gone", ttl=1))


def keys(ports: Ports) -> None:
    """Twenty members replace each one's own message to all, again and again."""
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="now", key="k"))


def many_keys(ports: Ports) -> None:
    """Messages that may be replaced, and are not, for somebody who is away."""
    forever(
        ports.mqtt,
        lambda foe: foe.send(
            b"".join(foe.packet("send", id=next(_ids), to="bob-away", body="x", key=next(_ids)) for _ in range(WINDOW))
        ),
    )


def blocked(ports: Ports) -> None:
    """Somebody who has blocked and muted as many as there may be, and does so on."""
    numbers = itertools.count()

    def churn(foe: Foe) -> None:
        for _ in range(WINDOW):
            name = f"user{next(numbers) % 9_999}"
            foe.ask("block", id=next(_ids), user=name)
            foe.ask("mute", id=next(_ids), conv=f"{foe.user}:{name}", until=9_999_999_999_999)
            foe.ask("send", id=next(_ids), to=foe.user, body="x")

    all_of_them(ports, churn)


def made_and_left(ports: Ports) -> None:
    """Small groups that are made, and left."""

    def work(foe: Foe) -> None:
        group = f"#g{next(_ids)}"
        foe.ask("group.create", id=next(_ids), group=group, members=["bob-away", "carol-away"])
        foe.ask("group.leave", id=next(_ids), group=group)

    all_of_them(ports, work)


def unseen(ports: Ports) -> None:
    """Searches in a group by who has come after all that was said there."""
    group = "#unseen"
    with contextlib.suppress(OSError):
        owner = Foe(ports.mqtt)
        owner.ask("group.create", id=next(_ids), group=group, members=[])
    talking = threading.Thread(
        target=forever, args=(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to=group, body="secret word")), daemon=True
    )
    talking.start()
    late = ACCOUNTS[0]

    def search(foe: Foe) -> None:
        for _ in range(WINDOW):
            foe.ask("search", query="secret word", conv=group)
            foe.ask("search", query="secret")

    def work() -> None:
        with contextlib.suppress(OSError):
            Foe(ports.mqtt).ask("group.add", id=next(_ids), group=group, members=[late])
        forever(ports.mqtt, search, user=late)

    at_once(4, work)


def gone(ports: Ports) -> None:
    """Pages of an inbox in which nearly everything has expired."""
    user = ACCOUNTS[1]

    def send(foe: Foe) -> None:
        foe.ask("send", id=next(_ids), to=user, body="x", ttl=1)

    for name in ACCOUNTS[2:6]:
        threading.Thread(target=forever, args=(ports.mqtt, send), kwargs={"user": name}, daemon=True).start()

    def ask(foe: Foe) -> None:
        foe.send(b"".join(foe.packet("sync", after=0) for _ in range(WINDOW)))

    at_once(4, lambda: forever(ports.mqtt, ask, user=user, listens=False))


def strangers(ports: Ports) -> None:
    """A new user with each message, and a new conversation."""
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=f"new{next(_ids)}", body="hello"))


def nothing_there(ports: Ports) -> None:
    """Requests about conversations that are none, each another."""

    def ask(foe: Foe) -> None:
        for _ in range(WINDOW):
            other = f"none{next(_ids)}"
            foe.ask("history", conv=f"#{other}")
            foe.ask("read", conv=f"{FOE}:{other}", seq=1)
            foe.ask("react", id=next(_ids), conv=f"{FOE}:{other}", seq=9, emoji="x")
            foe.ask("group.info", group=f"#{other}")

    at_once(4, lambda: forever(ports.mqtt, ask))


def far_apart(ports: Ports) -> None:
    """Single messages of a long conversation, here and there."""
    numbers = itertools.count()

    def ask(foe: Foe) -> None:
        for _ in range(WINDOW):
            number = next(numbers) * 7_919 % 5_000
            foe.ask("history", conv=f"{FOE}:user{number}", limit=1)
            foe.ask("history", conv=GROUP, before=1 + number, limit=1)
            foe.ask("sync", after=number, limit=1)

    at_once(15, lambda: forever(ports.mqtt, ask))


def names(ports: Ports) -> None:
    """As many names as there is room for in a packet, most of them twice."""
    many = [f"m{number % 20_000}" for number in range(24_000)]

    def ask(foe: Foe) -> None:
        foe.ask("group.create", id=next(_ids), members=many)
        foe.ask("group.add", id=next(_ids), group=GROUP, members=many)
        foe.ask("group.remove", id=next(_ids), group=GROUP, members=many)
        foe.ask("group.add", id=next(_ids), group=GROUP, members=[MEMBERS[1]] * 20_000)

    forever(ports.mqtt, ask)


def newcomers(ports: Ports) -> None:
    """Groups of twenty accounts to which ever new users are brought, a hundred at a time, and sent away; and those who stay."""

    def work(foe: Foe) -> None:
        group, some = f"#new-{foe.user}", [next(_ids) for _ in range(100)]
        foe.ask("group.create", id=f"new-{foe.user}", group=group, members=[f"stays-{foe.user}"])
        foe.ask("group.add", id=next(_ids), group=group, members=some)
        foe.ask("group.remove", id=next(_ids), group=group, members=[*some, f"stays-{foe.user}"])
        foe.ask("group.add", id=next(_ids), group=group, members=[f"stays-{foe.user}"])
        foe.ask("send", id=next(_ids), to=group, body="who is here?")

    all_of_them(ports, work)


def wrong_names(ports: Ports) -> None:
    """The same, but the last of them is none."""
    many = [f"m{number}" for number in range(24_000)] + ["no name"]
    forever(ports.mqtt, lambda foe: foe.ask("group.create", id=next(_ids), members=many))


GROUPS: dict[str, Attack] = {
    "edits and recalls in a crowd": edits,
    "names and roles in a crowd": names_and_roles,
    "20 admins of a crowd": admins,
    "receipts in a group of 200": receipts,
    "messages to a crowd that expire": expiring,
    "20 members replace their messages to a crowd": keys,
    "a new key with each message": many_keys,
    "thousands blocked and muted": blocked,
    "groups made and left": made_and_left,
    "searches for what may not be seen": unseen,
    "pages of what has expired": gone,
    "a new user with each message": strangers,
    "conversations that are none": nothing_there,
    "pages of one message": far_apart,
    "ever new members": newcomers,
    "24,000 names": names,
    "24,000 names, the last one wrong": wrong_names,
}
