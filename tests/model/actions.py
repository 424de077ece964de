"""What users do in a model test: strategies of actions, and the jobs they become.

An action names numbers by their distance from the newest, so that it means something whatever came before it, and makes its
job anew each time it is asked, since a job belongs to one store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.names import direct
from mqtt_im.store.interface import Engine, Readable
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import listings, pages

USERS = ("ann", "bob", "cat")
GHOST = "ghost"
"""A name that is no account."""
DEVICES = ("pc", "tel")
GROUPS = ("#g", "#h")
CONVS = (*sorted({direct(a, b) for a in USERS for b in USERS}), *GROUPS, "#none")
FILES = {"f": "ann", "g": "ann", "h": "bob"}
"""Uploaded files, and whose they are."""
IDS = tuple("0123456789abcdefghij")
BODIES = (b'"hi"', b'"ho"', b'{"a":1,"b":2}', b'{ "b":2, "a":1 }')


def ignore(job: Job) -> None:
    """Nobody waits for the job."""


@dataclass(frozen=True)
class Action:
    """`build` makes the job; it is given the store's engine to find the numbers that it speaks of."""

    text: str
    build: Callable[[Engine], Job] = field(repr=False)

    def __repr__(self) -> str:
        return self.text


users = st.sampled_from(USERS)
devices = st.sampled_from(DEVICES)
which = st.integers(0, 9)
"""One of the user's own conversations or groups, or, for the highest numbers, one that may be another's or nobody's."""
anywhere = st.sampled_from(CONVS)
ids = st.sampled_from(IDS)
back = st.integers(-1, 5)
"""How far behind the newest; -1 is beyond it."""
counters = st.sampled_from([*[None] * 5, *["next"] * 3, "wrong"])
bodies = st.sampled_from(BODIES)
some_users = st.lists(st.sampled_from((*USERS, *USERS, GHOST)), min_size=1, max_size=3)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly None."""
    return st.one_of(st.none(), st.none(), strategy)


def _conv(engine: Engine, user: str, number: int, group: bool) -> str:
    mine = [conv for _, conv in engine.state.later(engine.state.user(user), 0, "", 1000)]
    own = [conv for conv in mine if conv.member(user) and (conv.group or not group)]
    names = sorted(conv.name for conv in own)
    if not names or number > 8:
        return (*GROUPS, "#none")[number % 3] if group else CONVS[number % len(CONVS)]
    return names[number % len(names)]


def _seq(engine: Engine, conv: str, distance: int, by: str | None = None) -> int:
    found = engine.state.conv(conv)
    if found is None:
        return 1
    seq = found.head - distance
    while by is not None and seq > 1:
        message = engine.state.message(found, seq)
        if isinstance(message, Message) and message.by == by:
            break
        seq -= 1
    return max(1, seq)


def _n(engine: Engine, user: str, device: str, how: str | None) -> int | None:
    if how is None:
        return None
    found = engine.state.device(user, device)
    used = found.n if found is not None else 0
    return used + 1 if how == "next" else used + 3


def _own_copy(name: str, value: Any) -> Any:
    if name in ("body", "result"):
        return Raw(value)
    return value.copy() if isinstance(value, list | dict) else value


@st.composite
def requests(draw: st.DrawFn, kinds: Sequence[st.SearchStrategy[tuple[type[rq.Request], dict[str, Any]]]] = ()) -> Action:
    """A request that may change something, of one of these kinds, or of any."""
    user, device = draw(users), draw(devices)
    kind, fields = draw(draw(st.sampled_from(kinds or _KINDS)))
    fields = dict(fields)
    own = draw(st.sampled_from([True, True, False]))
    listening = draw(st.sampled_from([True, True, True, False]))
    packet = draw(st.sampled_from([None, ("s", 1, False), ("s", 1, True), ("t", 1, True)]))

    def build(engine: Engine) -> Job:
        made = dict(fields)
        if "n" in made:
            made["n"] = _n(engine, user, device, made["n"])
        for name in ("conv", "group"):
            if isinstance(made.get(name), int):
                made[name] = _conv(engine, user, made[name], name == "group")
        if isinstance(made.get("to"), int):
            made["to"] = _conv(engine, user, made["to"], True)
        if "seq" in made:
            made["seq"] = _seq(engine, made["conv"], made["seq"], user if kind in (rq.Edit, rq.Recall) and own else None)
        if made.get("reply_to") is not None:
            to = made["to"]
            made["reply_to"] = _seq(engine, to if to[0] == "#" else direct(user, to), made["reply_to"])
        for name in ("pos", "after"):
            if made.get(name) is not None:
                made[name] = max(0, engine.state.user(user).head - made[name])
        request = kind(**{name: _own_copy(name, value) for name, value in made.items()})
        request.check()
        without_id = kind is rq.Send and request.id is None
        return RequestJob(Who(user, device, 0, listening, "made", packet if without_id else None), request, ignore)

    return Action(f"{user}:{device} {kind.__struct_config__.tag} {fields} {packet if kind is rq.Send else ''}", build)


def _kind(kind: type[rq.Request], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[type[rq.Request], dict[str, Any]]]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(fields))


_SEND = _kind(
    rq.Send,
    id=st.one_of(ids, st.none()),
    n=counters,
    to=st.one_of(st.sampled_from((*USERS, *USERS, GHOST)), which),
    body=bodies,
    cts=maybe(st.just(1.5)),
    reply_to=maybe(back),
    ttl=maybe(st.sampled_from([1, 1000])),
    key=maybe(st.just("k")),
    mentions=maybe(st.lists(st.sampled_from((*USERS, "*")), max_size=2)),
    push=maybe(st.just({"title": "x"})),
    files=maybe(st.lists(st.sampled_from([*FILES, "none"]), max_size=2, unique=True)),
)
_KEYED = _kind(
    rq.Send, id=st.none(), to=st.one_of(st.sampled_from(USERS), which), body=bodies, key=st.just("k"), ttl=maybe(st.just(1))
)
_AMENDING = {"id": ids, "n": counters, "conv": which, "seq": back}
_GROUP = {"id": ids, "n": counters, "group": which}
_WEIGHED = [
    (12, _SEND),
    (4, _KEYED),
    (4, _kind(rq.Edit, **_AMENDING, body=bodies)),
    (3, _kind(rq.Recall, **_AMENDING)),
    (3, _kind(rq.React, **_AMENDING, emoji=st.sampled_from(["+", "-", ""]))),
    (1, _kind(rq.Report, **_AMENDING, state=st.just("executed"), result=st.sampled_from([b"", b"1", b"2"]))),
    (2, _kind(rq.Read, conv=which, seq=back)),
    (1, _kind(rq.Ack, pos=back)),
    (1, _kind(rq.Hello, after=maybe(back), n=maybe(st.integers(0, 3)), ack=maybe(st.sampled_from(["transport", "app"])))),
    (1, _kind(rq.Mute, id=ids, conv=which, until=st.sampled_from([0, 5]))),
    (1, _kind(rq.Settings, id=ids, read_receipts=maybe(st.booleans()), presence=maybe(st.booleans()))),
    (1, _kind(rq.Block, id=ids, user=users)),
    (1, _kind(rq.Unblock, id=ids, user=users)),
    (1, _kind(rq.DeviceForget, id=ids, device=devices)),
    (
        3,
        _kind(
            rq.GroupCreate,
            id=ids,
            n=counters,
            group=st.sampled_from((*GROUPS, None)),
            members=some_users,
            name=maybe(st.just("name")),
        ),
    ),
    (3, _kind(rq.GroupAdd, **_GROUP, members=some_users)),
    (2, _kind(rq.GroupRemove, **_GROUP, members=some_users)),
    (1, _kind(rq.GroupRole, **_GROUP, user=users, role=st.sampled_from(["owner", "admin", "member"]))),
    (1, _kind(rq.GroupRename, **_GROUP, name=st.sampled_from(["one", "two"]))),
    (2, _kind(rq.GroupLeave, **_GROUP)),
]
_KINDS = [kind for weight, kind in _WEIGHED for _ in range(weight)]


@st.composite
def attachments(draw: st.DrawFn) -> Action:
    """A device begins its delivery."""
    user, device, blind = draw(users), draw(devices), draw(st.booleans())
    how = "blind" if blind else ""
    return Action(f"{user}:{device} attaches {how}", lambda _: AttachJob(Who(user, device, 0), ignore, blind))


@st.composite
def cursors(draw: st.DrawFn) -> Action:
    """Cursors that PUBACKs have moved, with what that has delivered."""
    moved = draw(st.lists(st.tuples(users, devices, st.integers(0, 5)), min_size=1, max_size=3))
    left = draw(st.lists(st.tuples(users, devices, st.booleans()), max_size=1))

    def build(engine: Engine) -> Job:
        moves: list[tuple[str, str, int, list[Any]]] = []
        for user, device, distance in moved:
            head = engine.state.user(user).head
            pos = max(0, head - distance)
            moves.append((user, device, pos, list(engine.state.delivered(user, 0, pos))))
        return CursorsJob(moves, ignore, left)

    return Action(f"cursors {moved} {left}", build)


def _place(engine: Readable, first: int | None, second: int | None, conv: str) -> str | None:
    """A `next` that some listing may have told, however it went."""
    if first is None:
        return None
    begin = max(0, engine.last - first)
    return f"{begin}:{conv}" if second is None else f"{begin}.{max(1, begin - second)}"


@st.composite
def reads(draw: st.DrawFn) -> Action:
    """A page of one kind or another."""
    user, device = draw(users), draw(devices)
    limit, size = draw(st.integers(1, 4)), draw(st.sampled_from([1, 300, 10**6]))
    what = draw(st.sampled_from(["fetch", "sync", "history", "convs", "info"]))
    conv, first, second = draw(anywhere), draw(maybe(st.integers(0, 8))), draw(maybe(st.integers(0, 8)))
    group, after = draw(st.sampled_from(GROUPS)), draw(maybe(users))

    def read(engine: Readable) -> Any:
        who = Who(user, device, engine.now)
        match what:
            case "sync":
                return pages.sync(engine, who, rq.Sync(after=first or 0), limit, size)
            case "history":
                return pages.history(engine, who, rq.History(conv=conv, after=first, before=second), limit, size)
            case "convs":
                return listings.convs(engine, who, rq.Convs(after=_place(engine, first, second, conv)), limit, size)
        return listings.group_info(engine, who, rq.GroupInfo(group=group, after=after), limit, size)

    def build(_: Engine) -> Job:
        return FetchJob(user, first or 0, limit, size, ignore) if what == "fetch" else CallJob(read, ignore)

    return Action(f"{user}:{device} reads {what} {conv if what == 'history' else group} {first} {second}", build)


def _asked(user: str, request: Callable[[], rq.Request]) -> Action:
    return Action(user, lambda _: RequestJob(Who(user, "pc", 0), request(), ignore))


WARM = [
    Action("ann attaches", lambda _: AttachJob(Who("ann", "pc", 0), ignore)),
    Action("bob attaches", lambda _: AttachJob(Who("bob", "pc", 0), ignore)),
    _asked("ann", lambda: rq.GroupCreate(id="A", group="#g", members=["bob"])),
    _asked("bob", lambda: rq.Send(id="B", to="#g", body=Raw(b"1"))),
    _asked("bob", lambda: rq.Send(id="C", to="ann", body=Raw(b"2"), mentions=["ann"])),
    _asked("ann", lambda: rq.Edit(id="D", conv="ann:bob", seq=1, body=Raw(b"2"))),
]
"""A batch to begin with, so that most of what follows is about something. The edit is refused, since it is not ann's message."""

actions = st.one_of(requests(), requests(), requests(), requests(), attachments(), cursors(), reads())
commands = st.one_of(requests([_KEYED]), requests([_KEYED]), requests([_KEYED]), reads())
amendments = st.one_of(requests([kind for _, kind in _WEIGHED[2:5]]), requests([_SEND]), reads())
batches = st.one_of(*(st.lists(of, min_size=1, max_size=5) for of in (actions, actions, commands, amendments)))
