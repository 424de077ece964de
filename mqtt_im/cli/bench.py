"""`mqtt-im bench`: the load generator, against this server or any MQTT broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import secrets
import ssl
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args
from urllib.parse import urlsplit

import typer

from mqtt_im.protocol.errors import MqttImError

if TYPE_CHECKING:
    from mqtt_im.load.broker import Broker
    from mqtt_im.load.plan import Outcome, Plan
    from mqtt_im.load.workloads import Progress

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_BAR_STEPS: Final = 1000


def bench(
    url: Annotated[str, typer.Option("--url", help="Where the server is: mqtt:// or mqtts://.")] = "mqtt://127.0.0.1:1883",
    workload: Annotated[
        str, typer.Option("--workload", help="direct, group, idle, storm, catchup, or plain, which is for any MQTT broker.")
    ] = "direct",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Pairs; members of the group; connections (idle, storm).")] = 50,
    inflight: Annotated[int, typer.Option("--inflight", min=1, help="Messages of each sender on their way.")] = 20,
    rate: Annotated[float, typer.Option("--rate", min=0.0, help="Messages a second of all together, instead of --inflight.")] = 0,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Also draw it, as SVG.")] = None,
    names: Annotated[
        str | None, typer.Option("--names", help="What the users' names begin with: PREFIXa0, PREFIXb0, …; else a new one.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="plain: everybody logs in under this name.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="The first line of stdin is everybody's password.")
    ] = False,
    prefix: Annotated[str | None, typer.Option("--prefix", help="The server's mqtt.prefix; plain: the topics begin so.")] = None,
    ca: Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="mqtts://: certificates to trust, PEM.")] = None,
) -> None:
    """Put a server under load, and tell how fast it was. Every message is checked."""
    from mqtt_im.load.peer import PeerError
    from mqtt_im.load.plan import Plan, Workload

    known = get_args(Workload)
    if workload not in known:
        raise typer.BadParameter(f"--workload {workload!r} is none of {', '.join(known)}")
    if user is not None and workload != "plain":
        raise typer.BadParameter("--user is for --workload plain: the others need many users (--names)")
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    plain = workload == "plain"
    broker = _broker(url, ca, plain=plain, prefix=prefix or ("bench" if plain else "im/v1"), user=user, password=password)
    plan = Plan(
        workload=cast(Workload, workload),
        pairs=pairs,
        inflight=inflight,
        rate=rate,
        seconds=seconds,
        names=names or f"bench-{secrets.token_hex(3)}-",
    )
    _open_files()
    try:
        with _progress() as progress:
            outcome = _loop(_run(broker, plan, progress))
    except (PeerError, OSError) as error:
        raise MqttImError("bench", f"{url}: {_words(error)}") from error
    if plot is not None:
        from mqtt_im.load.plot import svg

        plot.write_text(svg(f"mqtt-im bench: {_what(plan)}", outcome), encoding="utf-8")
    typer.echo(json.dumps(_map(url, plan, outcome)) if as_json else _text(url, plan, outcome))


async def _run(broker: Broker, plan: Plan, progress: Progress) -> Outcome:
    from mqtt_im.load.workloads import run

    return await run(broker, plan, progress)


def _loop(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """On uvloop where it is: the generator should not be what is measured."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _broker(url: str, ca: Path | None, *, plain: bool, prefix: str, user: str | None, password: str | None) -> Broker:
    from mqtt_im.load.broker import Broker

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise typer.BadParameter(f"--url {url!r}: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.username:
        raise typer.BadParameter(f"--url {url!r} is not mqtt://HOST:PORT or mqtts://HOST:PORT")
    tls = None
    if parts.scheme == "mqtts":
        try:
            tls = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise typer.BadParameter(f"--ca {ca}: {error}") from error
    return Broker(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        tls=tls,
        is_ours=not plain,
        prefix=prefix,
        user=user,
        password=password,
    )


def _open_files() -> None:
    """As many connections as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _what, _share: None
        return
    with typer.progressbar(length=_BAR_STEPS, label="connecting".ljust(12), file=sys.stderr) as bar:

        def show(what: str, share: float) -> None:
            bar.label = what.ljust(12)
            bar.update(round(share * _BAR_STEPS) - bar.pos)

        yield show


def _words(error: Exception) -> str:
    return " ".join((str(error.strerror or error) if isinstance(error, OSError) else str(error)).split())


def _what(plan: Plan) -> str:
    if plan.workload in ("idle", "storm"):
        return f"{plan.workload}, {plan.pairs} connections, {plan.seconds:g} s"
    load = f"{plan.rate:g} a second" if plan.rate else f"{plan.inflight} in flight"
    counted = "members" if plan.workload == "group" else "pairs"
    return f"{plan.workload}, {plan.pairs} {counted}, {load}, {plan.seconds:g} s"


def _server(outcome: Outcome) -> dict[str, float] | None:
    if outcome.pid is None:
        return None
    found: dict[str, float] = {
        "pid": outcome.pid,
        "cpu_s": outcome.used.server_cpu_s,
        "cpu_percent": 100 * outcome.used.server_cpu_s / outcome.used.wall_s,
        "cpu_ms_per_1000": 1e6 * outcome.used.server_cpu_s / max(outcome.count, 1),
    }
    if outcome.memory_bytes is not None:
        found["memory_mb"] = outcome.memory_bytes / 1e6
    return found


def _map(url: str, plan: Plan, outcome: Outcome) -> dict[str, object]:
    return {
        "workload": plan.workload,
        "url": url,
        "pairs": plan.pairs,
        "inflight": 0 if plan.rate else plan.inflight,
        "rate": plan.rate,
        "seconds": outcome.used.wall_s,
        "unit": outcome.unit,
        "count": outcome.count,
        "per_second": outcome.per_second,
        "latency_of": outcome.latency_of,
        "latency_ms": outcome.latency_ms(),
        "server": _server(outcome),
        "generator": {"cpu_percent": 100 * outcome.used.generator_cpu_s / outcome.used.wall_s},
        "extra": outcome.extra,
        "hints": outcome.hints,
    }


def _text(url: str, plan: Plan, outcome: Outcome) -> str:
    latency = outcome.latency_ms()
    figures = "   ".join(f"{name} {value:,.2f} ms" for name, value in latency.items() if name != "max")
    lines = [
        f"{url}: {_what(plan)}",
        f"{outcome.unit:12} {outcome.count:,}, {outcome.per_second:,.0f} a second",
        f"{'latency':12} {figures}   longest {latency['max']:,.2f} ms   ({outcome.latency_of})",
    ]
    server = _server(outcome)
    if server is None:
        lines.append(f"{'server':12} not on this machine, or not to be looked at")
    else:
        each = f"{server['cpu_ms_per_1000']:,.1f} ms for 1,000 {outcome.unit}"
        memory = f", memory {server['memory_mb']:,.1f} MB" if "memory_mb" in server else ""
        lines.append(f"{'server':12} CPU {server['cpu_percent']:.0f} % of a core, {each}{memory} (pid {server['pid']:.0f})")
    lines.append(f"{'generator':12} CPU {100 * outcome.used.generator_cpu_s / outcome.used.wall_s:.0f} % of a core")
    lines += [f"{name.replace('_', ' ')}: {value:,.2f}" for name, value in outcome.extra.items()]
    return "\n".join([*lines, *outcome.hints])
