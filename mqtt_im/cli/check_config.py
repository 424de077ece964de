"""`mqtt-im check-config`."""

from __future__ import annotations

import typer

from mqtt_im.cli.options import ConfigFile, Overrides
from mqtt_im.config import load


def check_config(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Read the configuration and tell every mistake in one line each."""
    load(config, overrides or ())
    typer.echo("The configuration is right.")
