"""`mqtt-im chat`: conversations in a terminal, or a filter for scripts."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mqtt_im.protocol.errors import MqttImError

DEFAULT_URL = "mqtt://127.0.0.1:1883"


def chat(
    user: Annotated[str, typer.Argument(metavar="USER", help="Who you are.")],
    to: Annotated[str | None, typer.Option("--to", metavar="PEER", help="A user or group to talk to.")] = None,
    url: Annotated[
        list[str], typer.Option("--url", help="Where the server is: mqtt://, mqtts://, ws://, wss://; may be repeated.")
    ] = [DEFAULT_URL],  # noqa: B006 - typer copies it
    http: Annotated[str | None, typer.Option("--http", help="The server's HTTP address, for files.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="The first line of stdin is the password.")] = False,
    store: Annotated[Path | None, typer.Option("--store", help="What is unsent and unread is kept here.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="This device's name.")] = None,
    send: Annotated[str | None, typer.Option("--send", metavar="TEXT", help="Send one message, and end.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines are JSON: fields of send in, items out.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on listening until SIGINT.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, help="Seconds to wait until all is sent.")] = 60.0,
    prefix: Annotated[str, typer.Option("--prefix", help="The server's mqtt.prefix.")] = "im/v1",
) -> None:
    """Talk to people from a terminal. Without one, each line of stdin is a message to --to, and what comes is printed."""
    from mqtt_im.chat.filter import Filter, WrongCallError
    from mqtt_im.client import Client, ClientError

    logging.getLogger("mqtt_im").addHandler(logging.NullHandler())  # what the library logs, the chat says itself
    password = _first_line() if password_stdin else None
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and send is None and not follow and not as_json
    place = store if store is not None else default_store(url[0], user)
    try:
        if store is None:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        options: dict[str, Any] = {"user": user, "device": device, "store": place, "http": http, "prefix": prefix}
        if terminal:
            from mqtt_im.chat.terminal import Secret, run

            secret = Secret(password)
            code = run(Client(url, password=secret, **options), to, secret)
        else:
            code = asyncio.run(Filter(to, as_json, send, follow, timeout).run(Client(url, password=password, **options)))
    except ImportError as error:
        raise MqttImError("chat", f"the chat in a terminal needs the extra: pip install 'mqtt-im[chat]' ({error})") from error
    except (WrongCallError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    except ClientError as error:
        raise MqttImError("chat", str(error)) from error
    raise typer.Exit(code)


def default_store(url: str, user: str) -> Path:
    """Where the chat of one user with one server keeps what is unsent and how far it has read (XDG base directories)."""
    base = os.environ.get("XDG_DATA_HOME") or ""
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share"
    server = re.sub(r"[^A-Za-z0-9.-]+", "_", url.partition("://")[2].rpartition("@")[2].rstrip("/")) or "server"
    return folder / "mqtt-im" / server / f"{user}.db"


def _first_line() -> str:
    """Read no further than the line's end: the rest of stdin is messages."""
    line = b""
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "replace").rstrip("\r")
