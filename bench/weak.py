"""Weak networks: the client library beside a plain paho client with a persistent session, each on a line of `bench/line.py`.

Columns: `mqtt-im` is the client library on this server, `mosquitto` paho on mosquitto, and `paho here` paho on this server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.line import CLEAR, EDGE, FAR, LIFT, LOSSY_3G, TUNNEL, Line, Profile
from bench.report import Row, Target
from bench.servers import MOSQUITTO, OURS, Server, running
from bench.stock import StockApp
from mqtt_im.client import Client
from mqtt_im.client.core.liveness import Liveness
from mqtt_im.client.core.liveness import Path as NetworkPath
from mqtt_im.load.bodies import bodies
from mqtt_im.load.figures import percentile

STOCK_HERE = "paho here"
_TEXT_BYTES = 60
_MISSED = 200
_PATIENCE_S = 120.0
_SHORT = 50
_TEXTS = [body[:_TEXT_BYTES].decode() for body in bodies()]
_FEWER_BYTES = (Target(1, 0.4, over="×"),)
_NONE = (Target(0, 0),)
_HALF_OPEN = "a half-open line is found, keep-alive 60 s (paho: measured at 6 s, times ten)"

Figures = dict[tuple[str, str], tuple[float, tuple[Target, ...]]]


async def compare(seconds: float, clients: int) -> list[Row]:
    """Everything, on fresh servers."""
    rows: dict[tuple[str, str], Row] = {}

    def note(column: str, what: str, unit: str, value: float, targets: tuple[Target, ...] = ()) -> None:
        rows.setdefault((what, unit), Row(what, unit, targets=targets)).values[column] = value

    with running(MOSQUITTO) as mosquitto, running(OURS) as ours, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for profile in (FAR, EDGE, LOSSY_3G):
            print(f"  catching up, {profile.name} …", file=sys.stderr, flush=True)
            await _catch_up_stock(mosquitto, MOSQUITTO, profile, note)
            await _catch_up_stock(ours, STOCK_HERE, profile, note)
            await _catch_up(ours, folder, profile, note)
        print("  short messages, idle, half-open …", file=sys.stderr, flush=True)
        await _short_stock(mosquitto, note)
        await _short(ours, folder, note)
        _idle(note)
        await _half_open_stock(mosquitto, note)
        await _half_open(ours, folder, note)
        for profile in (EDGE, LOSSY_3G, TUNNEL, LIFT):
            print(f"  both ways for {seconds:g} s, {profile.name} …", file=sys.stderr, flush=True)
            await asyncio.gather(
                _both_ways_stock(mosquitto, profile, seconds, note), _both_ways(ours, folder, profile, seconds, note)
            )
    print(f"  {clients} clients and a restart …", file=sys.stderr, flush=True)
    await _restart(clients, note)
    return list(rows.values())


Note = Callable[..., None]


def _topics(server: Server, user: str) -> tuple[str, str]:
    """(where paho listens, where others write to it)."""
    if server.is_ours:
        return server.down(user), ""
    return f"chat/{user}", f"chat/{user}"


async def _until(condition: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
    deadline = time.perf_counter() + patience_s
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"not within {patience_s:g} s")
        await asyncio.sleep(0.005)


_numbers = itertools.count()


def _fresh(word: str) -> str:
    return f"{word}{next(_numbers)}"


# Catching up


async def _fill(server: Server, to: str, topic: str) -> None:
    """So many messages were sent to a user who is away."""
    sender = StockApp(server.port, user := _fresh("filler"), server.down(user) if server.is_ours else f"chat/{user}")
    sender.start()
    await _until(sender.connected.is_set)
    for text in _TEXTS[:_MISSED]:
        sender.say(topic or f"{server.prefix}/{user}/phone/up", to, text)
    await _until(lambda: sender.acknowledged == _MISSED)
    await asyncio.to_thread(sender.stop)


def _caught_up(column: str, line: Line, times: list[float], note: Note) -> None:
    name, round_trip_s = line.profile.name, line.profile.round_trip_s
    first, last = times[0] - line.accepted_at, times[-1] - line.accepted_at
    note(column, f"{name}: from TCP to the first missed message", "round trips", first / round_trip_s, (Target(2, 1.2),))
    note(column, f"{name}: {_MISSED} messages missed, until the last", "s", last)
    note(column, f"{name}: {_MISSED} messages missed, both ways", "bytes", line.up + line.down, _FEWER_BYTES)


async def _catch_up_stock(server: Server, column: str, profile: Profile, note: Note) -> None:
    user = _fresh("away")
    listen, write = _topics(server, user)
    app = StockApp(server.port, user, listen)
    app.start()
    await _until(app.connected.is_set)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(app.stop)
    await _fill(server, user, write)
    async with Line(server.port, profile) as line:
        back = StockApp(line.port, user, listen)
        back.start()
        await _until(lambda: len(back.received) >= _MISSED)
        _caught_up(column, line, [at for at, _ in back.received], note)
        await asyncio.to_thread(back.stop)


async def _catch_up(server: Server, folder: Path, profile: Profile, note: Note) -> None:
    user = _fresh("away")
    async with Client(f"mqtt://127.0.0.1:{server.port}", user=user, store=folder / f"{user}.db") as im:
        await im.online(_PATIENCE_S)
        await asyncio.sleep(0.2)
    await _fill(server, user, "")
    async with Line(server.port, profile) as line:
        times: list[float] = []
        async with Client(f"mqtt://127.0.0.1:{line.port}", user=user, store=folder / f"{user}.db", synchronous="normal") as im:
            async with asyncio.timeout(_PATIENCE_S):
                async for _ in im.messages():
                    times.append(time.perf_counter())
                    if len(times) == _MISSED:
                        break
            await asyncio.sleep(1.0)  # what it still acknowledges counts
            _caught_up(OURS, line, times, note)


# What a short message costs


async def _short_stock(server: Server, note: Note) -> None:
    async with Line(server.port, CLEAR) as line:
        user, peer = _fresh("short"), _fresh("short")
        app, other = StockApp(line.port, user, f"chat/{user}"), StockApp(server.port, peer, f"chat/{peer}")
        for each in (app, other):
            each.start()
            await _until(each.connected.is_set)
        await asyncio.sleep(0.3)
        before = line.up + line.down
        for number in range(_SHORT):
            app.say(f"chat/{peer}", peer, "On my way")
            await _until(lambda number=number: app.acknowledged > number)  # type: ignore[misc]
        middle = line.up + line.down
        for number in range(_SHORT):
            other.say(f"chat/{user}", user, "On my way")
            await _until(lambda number=number: len(app.received) > number)  # type: ignore[misc]
        await asyncio.sleep(0.3)
        after = line.up + line.down
        await asyncio.to_thread(app.stop)
        await asyncio.to_thread(other.stop)
    note(MOSQUITTO, "a message of 9 bytes, sent and acknowledged", "bytes", (middle - before) / _SHORT)
    note(MOSQUITTO, "a message of 9 bytes, received", "bytes", (after - middle) / _SHORT)


async def _short(server: Server, folder: Path, note: Note) -> None:
    async with Line(server.port, CLEAR) as line:
        user, peer = _fresh("short"), _fresh("short")
        near = Client(f"mqtt://127.0.0.1:{line.port}", user=user, store=folder / f"{user}.db")
        far = Client(f"mqtt://127.0.0.1:{server.port}", user=peer, store=folder / f"{peer}.db")
        async with near, far:
            await near.online(_PATIENCE_S)
            await far.online(_PATIENCE_S)
            await asyncio.sleep(1.0)
            before = line.up + line.down
            for _ in range(_SHORT):
                await (await near.send(peer, "On my way")).sent(_PATIENCE_S)
            await asyncio.sleep(1.0)
            middle = line.up + line.down
            messages = near.messages()
            for _ in range(_SHORT):
                await (await far.send(user, "On my way")).sent(_PATIENCE_S)
                await anext(messages)
            await asyncio.sleep(1.0)
            after = line.up + line.down
    note(OURS, "a message of 9 bytes, sent and acknowledged", "bytes", (middle - before) / _SHORT)
    note(OURS, "a message of 9 bytes, received", "bytes", (after - middle) / _SHORT)


def _idle(note: Note) -> None:
    """Pings of an hour in which nothing else happens, by the machine that decides about them; 2 bytes each way, and PINGRESP."""
    now, liveness = 0.0, Liveness(0.0, NetworkPath(), 600)
    hours: list[int] = []
    for hour in (1, 2):
        pings = 0
        while (due := liveness.ping_due()) < hour * 3600:
            now = due
            liveness.pinged(now)
            liveness.heard(now + 0.1)
            liveness.ponged(now + 0.1)
            pings += 1
        hours.append(pings * 4)
    note(OURS, "an idle hour, the first (computed)", "bytes", hours[0], (Target(0.5, 0.2, over="×"),))
    note(OURS, "an idle hour, the second (computed)", "bytes", hours[1], (Target(0.5, 0.2, over="×"),))
    note(MOSQUITTO, "an idle hour, the first (computed)", "bytes", 3600 / 60 * 4)
    note(MOSQUITTO, "an idle hour, the second (computed)", "bytes", 3600 / 60 * 4)


# Half-open lines


async def _half_open_stock(server: Server, note: Note) -> None:
    keepalive = 6
    async with Line(server.port, CLEAR) as line:
        app = StockApp(line.port, _fresh("open"), "chat/open", keepalive=keepalive)
        app.start()
        await _until(app.connected.is_set)
        await asyncio.sleep(0.5)
        line.silence()
        begin = time.perf_counter()
        app.say("chat/nobody", "nobody", "Are you there?")
        await _until(lambda: app.lost_at > begin)
        note(
            MOSQUITTO,
            _HALF_OPEN,
            "s",
            10 * (app.lost_at - begin),
        )
        await asyncio.to_thread(app.stop)


async def _half_open(server: Server, folder: Path, note: Note) -> None:
    async with Line(server.port, CLEAR) as line:
        user = _fresh("open")
        async with Client(f"mqtt://127.0.0.1:{line.port}", user=user, store=folder / f"{user}.db", keepalive=60) as im:
            await im.online(_PATIENCE_S)
            await asyncio.sleep(1.0)
            line.silence()
            begin = time.perf_counter()
            await im.send(user, "Are you there?")
            await _until(lambda: im.state != "online")
            found = time.perf_counter() - begin
    note(OURS, _HALF_OPEN, "s", found)


# What an app sees of a bad line


def _faults(sent: list[str], received: list[str]) -> tuple[int, int, int]:
    """(missing, repeated, out of order)."""
    count = Counter(received)
    once = list(dict.fromkeys(received))
    places = [int(text.split()[1]) for text in once]
    disorder = sum(later < earlier for earlier, later in itertools.pairwise(places))
    return sum(text not in count for text in sent), sum(times - 1 for times in count.values()), disorder


def _note_faults(column: str, profile: Profile, faults: list[tuple[int, int, int]], note: Note) -> None:
    for index, what in enumerate(("lost", "doubled", "out of order")):
        note(column, f"{profile.name}, both ways: {what}", "messages", sum(each[index] for each in faults), _NONE)


def _texts(app: StockApp) -> set[str]:
    return {text for _, text in app.received}


async def _both_ways_stock(server: Server, profile: Profile, seconds: float, note: Note) -> None:
    async with Line(server.port, profile) as line:
        near, far = _fresh("near"), _fresh("far")
        app, other = StockApp(line.port, near, f"chat/{near}", keepalive=10), StockApp(server.port, far, f"chat/{far}")
        app.start()
        other.start()
        await _until(lambda: app.connected.is_set() and other.connected.is_set())
        await asyncio.sleep(2 * profile.round_trip_s + 0.5)  # subscribed
        out: list[str] = []
        back: list[str] = []
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            out.append(f"out {len(out)}")
            back.append(f"back {len(back)}")
            app.say(f"chat/{far}", far, out[-1])
            other.say(f"chat/{near}", near, back[-1])
            await asyncio.sleep(0.5)
        with contextlib.suppress(TimeoutError):  # told as lost
            await _until(lambda: _texts(other) >= set(out) and _texts(app) >= set(back), 90)
        faults = [_faults(sent, [text for _, text in to.received]) for sent, to in ((out, other), (back, app))]
        _note_faults(MOSQUITTO, profile, faults, note)
        await asyncio.to_thread(app.stop)
        await asyncio.to_thread(other.stop)


async def _both_ways(server: Server, folder: Path, profile: Profile, seconds: float, note: Note) -> None:
    async with Line(server.port, profile) as line:
        near, far = _fresh("near"), _fresh("far")
        here = Client(f"mqtt://127.0.0.1:{line.port}", user=near, store=folder / f"{near}.db")
        there = Client(f"mqtt://127.0.0.1:{server.port}", user=far, store=folder / f"{far}.db")
        async with here, there:
            got: dict[Client, list[str]] = {here: [], there: []}

            async def read(im: Client) -> None:
                async for message in im.messages():
                    got[im].append(str(message.body))

            readers = [asyncio.create_task(read(im)) for im in (here, there)]
            await here.online(_PATIENCE_S)
            out: list[str] = []
            back: list[str] = []
            begin = time.perf_counter()
            while time.perf_counter() - begin < seconds:
                out.append(f"out {len(out)}")
                back.append(f"back {len(back)}")
                await here.send(far, out[-1])
                await there.send(near, back[-1])
                await asyncio.sleep(0.5)
            with contextlib.suppress(TimeoutError):  # told as lost
                await _until(lambda: len(got[there]) >= len(out) and len(got[here]) >= len(back), 90)
            await asyncio.sleep(1.0)
            for reader in readers:
                reader.cancel()
    _note_faults(OURS, profile, [_faults(out, got[there]), _faults(back, got[here])], note)


# Everybody comes back


async def _restart(clients: int, note: Note) -> None:
    online: list[float] = []

    async def watch(im: Client, ready: Callable[[], bool]) -> None:
        async for state in im.states():
            if state == "online" and ready():
                online.append(time.perf_counter())
                return

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as second:
        with contextlib.ExitStack() as first:
            server = await asyncio.to_thread(first.enter_context, running(OURS, data=Path(name)))
            everyone = [Client(f"mqtt://127.0.0.1:{server.port}", user=f"user{number}") for number in range(clients)]
            await _each(everyone, lambda im: im.connect())
            await _each(everyone, lambda im: im.online(_PATIENCE_S))
            ended = asyncio.Event()
            watchers = [asyncio.create_task(watch(im, ended.is_set)) for im in everyone]
            await asyncio.sleep(0)
            await asyncio.to_thread(first.close)
        ended.set()
        # In a thread, so that the clients' own timers go on.
        await asyncio.to_thread(second.enter_context, running(OURS, data=Path(name), port=server.port))
        begin = time.perf_counter()
        await asyncio.wait(watchers, timeout=_PATIENCE_S)
        took = sorted(at - begin for at in online)
        busiest = max(sum(each <= at < each + 0.1 for at in took) for each in took)
        await _each(everyone, lambda im: im.close())
        await asyncio.to_thread(second.close)
    title = f"{clients} clients after a restart"
    note(OURS, f"{title}: back", "clients", len(took))
    for share, word in ((0.1, "a tenth"), (0.5, "half"), (0.99, "99 %")):
        note(OURS, f"{title}: {word} are back after", "s", percentile(took, share))
    note(OURS, f"{title}: most within a tenth of a second", "clients", busiest)


async def _each(everyone: list[Client], what: Callable[[Client], Awaitable[None]]) -> None:
    for first in range(0, len(everyone), 50):
        await asyncio.gather(*(what(im) for im in everyone[first : first + 50]))
