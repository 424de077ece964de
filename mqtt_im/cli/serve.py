"""`mqtt-im serve`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator

import typer

from mqtt_im import logs
from mqtt_im.cli.options import ConfigFile, Overrides
from mqtt_im.cli.trial import load_tried
from mqtt_im.config import Address, Config, load, parse_bind

if sys.platform == "win32":
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
else:
    try:
        import uvloop
    except ImportError:  # pypy, or a platform without a wheel
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop


def serve(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Run everything in the foreground until SIGTERM or SIGINT."""
    # The other commands need none of it, and between reading the configuration and obeying signals is no time to lose.
    from mqtt_im.app import Server

    loaded = load_tried(config, overrides or ())
    logs.set_up(loaded.log)

    async def run() -> None:
        await Server(loaded, lambda: load(config, overrides or ())).run(welcome)

    def welcome() -> None:
        if loaded.auth.mode == "open" and loaded.log.format == "text":
            typer.echo("\n".join(introduction(loaded)))
            sys.stdout.flush()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


def introduction(config: Config) -> Iterator[str]:
    """What a newcomer can do with a server in open mode, to be pasted into other terminals."""
    mqtt, websocket, http = (parse_bind(bind) for bind in (config.mqtt.bind, config.websocket.bind, config.http.bind))
    yield ""
    yield "MQTT-IM is ready, for any user name, on this machine only."
    if mqtt is not None:
        yield f"  MQTT            {mqtt}"
    if websocket is not None:
        yield f"  MQTT/WebSocket  ws://{websocket}{config.websocket.path}"
    if http is not None:
        if config.http.web:
            yield f"  Web chat        http://{http}/"
        yield f"  Health          http://{http}/health/ready"
    yield ""
    if mqtt is not None:
        yield from _chat(mqtt, config.mqtt.prefix)
    yield "Ctrl-C stops the server."


def _chat(address: Address, prefix: str) -> Iterator[str]:
    where = f"-h {address.host} -p {address.port}"
    yield "To chat, open two other terminals (the two programs: apt-get install mosquitto-clients)."
    yield "In the first, bob listens:"
    yield ""
    yield f"  mosquitto_sub {where} -u bob -i phone -c -q 1 -t {prefix}/bob/down"
    yield ""
    yield "In the second, alice writes to him:"
    yield ""
    yield f"  mosquitto_pub {where} -u alice -i laptop -q 1 -t {prefix}/alice/laptop/up \\"
    yield """      -m '{"op": "send", "to": "bob", "body": "Hello Bob"}'"""
    yield ""
    yield "Stop bob, write to him, start him again: what he missed is there, also if the server was killed in between."
    yield ""
