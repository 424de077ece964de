"""Options that several commands take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file; else MQTT_IM_CONFIG names it, else it is ./mqtt-im.toml where that exists.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Goes over file and environment; may be given several times."),
]


def tell_where(where: str) -> None:
    """Say on a terminal which folder, or database, a command works on: a configuration that was not found means another one.

    Not elsewhere, since what programs read from a command has its meaning.
    """
    if sys.stderr.isatty():
        typer.echo(f"data_dir: {where}" if where.startswith("/") else where, err=True)
