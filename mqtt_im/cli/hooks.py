"""`mqtt-im hooks …`: webhooks that failed too often, also beside a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee
import typer

from mqtt_im.cli.options import ConfigFile, Overrides, tell_where
from mqtt_im.cli.places import place_for
from mqtt_im.config import load
from mqtt_im.hooks.outbox import NAME, Outbox
from mqtt_im.protocol.errors import StoreError

app = typer.Typer(help="List webhooks that were put aside, and send them again.", no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _outbox(config: Path | None, overrides: list[str] | None) -> Iterator[Outbox]:
    place = place_for(load(config, overrides or ()))
    if not place.has(NAME):
        raise StoreError("there is no outbox of webhooks; has a server with webhooks run on this data_dir or database?")
    outbox = Outbox(place)
    try:
        yield outbox
    except peewee.PeeweeException as error:
        raise StoreError(f"{outbox.where}: {error}") from error
    finally:
        outbox.close()


@app.command("list")
def list_dead(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """List what was put aside, one a line: event, user or log row, how often it was tried, why it failed; with tabs between."""
    with _outbox(config, overrides) as outbox:
        tell_where(outbox.where)
        for dead in outbox.dead():
            typer.echo("\t".join((dead.event, dead.subject, str(dead.attempts), dead.error)))


@app.command()
def retry(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Send what was put aside again, from the first attempt on."""
    with _outbox(config, overrides) as outbox:
        count = outbox.revive()
    typer.echo(f"{count} webhook{'' if count == 1 else 's'} will be sent again from {outbox.where}.")
