"""`python -m bench`: every scenario, or one, each server beside the others, as one table."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import uvloop

from bench import (
    catchup,
    disk,
    fanout,
    full,
    hostile,
    idle,
    logins,
    pairs,
    pieces,
    postgres,
    retention,
    servers,
    size,
    storm,
    versions,
    weak,
    web,
)
from bench.http import compare as compare_http
from bench.report import Row, medians, save, table
from bench.seed import Size
from mqtt_im.load.peer import PeerError

OTHERS = "server core used by others"
_QUIET_PERCENT = 5.0

Scenario = Callable[[argparse.Namespace], Coroutine[None, None, list[Row]]]


async def _pairs(options: argparse.Namespace) -> list[Row]:
    if options.rate:
        loads = [pairs.Load(options.pairs, 0, options.rate, options.seconds)]
    elif options.inflight:
        loads = [pairs.Load(options.pairs, options.inflight, 0, options.seconds)]
    else:
        loads = [
            pairs.Load(options.pairs, 20, 0, options.seconds),
            pairs.Load(options.pairs, 1, 0, options.seconds),
            pairs.Load(options.pairs, 0, 500, options.seconds),
        ]
    return await pairs.compare(options.servers, loads, dict(options.set))


async def _full(options: argparse.Namespace) -> list[Row]:
    load = pairs.Load(options.pairs, options.inflight or 20, 0, options.seconds)
    return await full.compare(Size(options.users, options.messages), options.idle, load, options.keep)


async def _idle(options: argparse.Namespace) -> list[Row]:
    return await idle.compare(options.servers, options.idle)


async def _versions(options: argparse.Namespace) -> list[Row]:
    return await versions.compare(pairs.Load(options.pairs, options.inflight or 20, 0, options.seconds), options.idle)


async def _fanout(options: argparse.Namespace) -> list[Row]:
    return await fanout.compare(options.servers, options.members, options.seconds)


async def _catchup(options: argparse.Namespace) -> list[Row]:
    return await catchup.compare(options.servers, options.items)


async def _logins(options: argparse.Namespace) -> list[Row]:
    return await logins.compare(options.servers, options.logins)


async def _storm(options: argparse.Namespace) -> list[Row]:
    return await storm.compare(storm.Crowd(options.clients, options.patience), dict(options.set))


async def _weak(options: argparse.Namespace) -> list[Row]:
    return await weak.compare(max(options.seconds, 60.0), 500)


async def _hostile(options: argparse.Namespace) -> list[Row]:
    return await hostile.compare(options.members, options.seconds, options.attack, dict(options.set))


async def _http(options: argparse.Namespace) -> list[Row]:
    return await compare_http(options.seconds, options.streams)


async def _size(options: argparse.Namespace) -> list[Row]:
    return size.compare(options.messages // 10, options.users // 10, options.keep)


async def _pieces(_: argparse.Namespace) -> list[Row]:
    return pieces.compare(5_000, 10_000)


async def _retention(options: argparse.Namespace) -> list[Row]:
    return await retention.compare(3 * options.messages // 10)


async def _web(options: argparse.Namespace) -> list[Row]:
    return await web.compare(1_000, options.items)


async def _postgres(options: argparse.Namespace) -> list[Row]:
    return await postgres.compare(options.part, options.messages // 200, options.seconds)


async def _disk(_: argparse.Namespace) -> list[Row]:
    return disk.reference()


_SCENARIOS: dict[str, tuple[Scenario, str]] = {
    "disk": (_disk, "the disk alone: write and fdatasync"),
    "pairs": (_pairs, "durable 1:1 messages: 20 in flight, 1 in flight, paced at 500/s (or as --inflight, --rate say)"),
    "full": (_full, "1:1 messages on a full store with idle connections, against an empty server; bytes written"),
    "size": (_size, "a tenth of such a store, without a server: pages of who has much, a rebuild, a check"),
    "pieces": (_pieces, "the longest that one request takes the ledger's thread at once: large groups, who is erased"),
    "retention": (_retention, "three tenths of such a store taken by one pass, beside a message every 2 ms"),
    "idle": (_idle, "memory of an idle connection"),
    "versions": (_versions, "MQTT 5 beside 3.1.1: CPU of a message, memory of an idle connection, bytes of an item"),
    "fanout": (_fanout, "a group of connected members against a topic with as many subscribers"),
    "catchup": (_catchup, "a device that is far behind"),
    "logins": (_logins, "connections accepted with cached credentials"),
    "http": (_http, "the API, streams, uploads and who looks on, each beside what it is to be measured by, in turns"),
    "hostile": (_hostile, "a well-behaved pair beside each of the attacks that the default limits allow"),
    "weak": (_weak, "the client library on bad networks, beside paho with a persistent session on mosquitto"),
    "storm": (_storm, "everybody logs in at once, each at the cost of an argon2, beside pairs that stay"),
    "postgres": (_postgres, "the store on PostgreSQL: its CPU and the node's, several nodes, a large group, a fail-over"),
    "web": (_web, "the web chat in Chromium: weight, and somebody with 1,000 conversations who was away for 100,000 messages"),
}


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in servers.EVERY_SERVER:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(servers.EVERY_SERVER)}")
    return servers.available(names)


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _arguments(line: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.epilog = "scenarios:\n" + "\n".join(f"  {name:9} {text}" for name, (_, text) in _SCENARIOS.items())
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help="which ones; all where none is named")
    parser.add_argument("--servers", type=_names, default=_names(",".join(servers.EVERY_SERVER)), help="comma-separated")
    parser.add_argument("--rounds", type=int, default=1, help="repeat each scenario and show medians")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a load is measured")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--inflight", type=int, default=0, help="messages of a pair on their way (pairs, full)")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second of all pairs together (pairs)")
    parser.add_argument("--users", type=int, default=Size.users, help="in the store (full)")
    parser.add_argument("--messages", type=int, default=Size.messages, help="in the store (full)")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (full, idle, versions)")
    parser.add_argument("--keep", type=Path, help="folder that keeps the filled store for the next run (full, size)")
    parser.add_argument("--members", type=int, default=1_000, help="of the group (fanout), connected ones (hostile)")
    parser.add_argument("--items", type=int, default=100_000, help="how far the device is behind (catchup, web)")
    parser.add_argument("--logins", type=int, default=10_000, help="connections (logins)")
    parser.add_argument("--clients", type=int, default=storm.Crowd.clients, help="that come at once (storm)")
    parser.add_argument(
        "--patience", type=float, default=storm.Crowd.patience_s, help="seconds a client waits for CONNACK (storm)"
    )
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="of our server (pairs, storm, hostile)"
    )
    parser.add_argument("--streams", type=int, default=10_000, help="that only stay open (http)")
    parser.add_argument("--attack", action="append", default=[], metavar="NAME", help="only this one (hostile)")
    parser.add_argument("--part", action="append", default=[], choices=list(postgres.PARTS), help="only this one (postgres)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(line)
    for name in options.scenario:
        if name not in _SCENARIOS:
            parser.error(f"{name!r} is none of {', '.join(_SCENARIOS)}")
    return options


def main(line: list[str]) -> int:
    """Run what the command line asks for; 1 where a scenario failed."""
    options = _arguments(line)
    for number in (signal.SIGINT, signal.SIGTERM):  # the shell has a background process ignore the former
        signal.signal(number, signal.default_int_handler)  # so that the servers end with it
    servers.prepare()
    rows: list[Row] = []
    failures = 0
    for name in options.scenario or _SCENARIOS:
        print(f"{name}: {_SCENARIOS[name][1]} …", file=sys.stderr, flush=True)
        try:
            rows += medians([uvloop.run(_SCENARIOS[name][0](options)) for _ in range(options.rounds)])
        except (PeerError, TimeoutError, servers.ServerFailed) as error:
            print(f"{name} failed: {error}", file=sys.stderr)
            failures += 1
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores. Ratio: ours to mosquitto's, or to the empty server's.\n")
    print(table(rows))
    taken = max((value for row in rows if row.what.endswith(OTHERS) for value in row.values.values()), default=0.0)
    if taken > _QUIET_PERCENT:
        print(f"\nOthers had up to {taken:.0f} % of the server's core: throughputs, latencies and their verdicts are void.")
    if options.json:
        save(rows, options.json)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
