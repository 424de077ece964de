"""`mqtt-im check-config`."""

from __future__ import annotations

import typer

from mqtt_im.cli.options import ConfigFile, Overrides
from mqtt_im.cli.trial import load_tried


def check_config(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Read the configuration and tell every mistake in one line each."""
    load_tried(config, overrides or ())
    typer.echo("The configuration is right.")
