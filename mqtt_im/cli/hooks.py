"""`mqtt-im hooks …`: webhooks that failed too often, also beside a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee
import typer

from mqtt_im.cli.options import ConfigFile, Overrides, tell_folder
from mqtt_im.config import load
from mqtt_im.hooks.outbox import FILE_NAME, Outbox
from mqtt_im.protocol.errors import StoreError

app = typer.Typer(help="List webhooks that were put aside, and send them again.", no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _outbox(config: Path | None, overrides: list[str] | None) -> Iterator[Outbox]:
    folder = Path(load(config, overrides or ()).data_dir)
    if not (folder / FILE_NAME).exists():
        raise StoreError(f"{folder / FILE_NAME}: there is no such file; has a server with webhooks run on this data_dir?")
    outbox = Outbox(folder)
    try:
        yield outbox
    except peewee.PeeweeException as error:
        raise StoreError(f"{outbox.path}: {error}") from error
    finally:
        outbox.close()


@app.command("list")
def list_dead(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """List what was put aside, one a line: event, user or log row, how often it was tried, why it failed; with tabs between."""
    with _outbox(config, overrides) as outbox:
        tell_folder(outbox.path.parent)
        for dead in outbox.dead():
            typer.echo("\t".join((dead.event, dead.subject, str(dead.attempts), dead.error)))


@app.command()
def retry(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Send what was put aside again, from the first attempt on."""
    with _outbox(config, overrides) as outbox:
        count = outbox.revive()
    typer.echo(f"{count} webhook{'' if count == 1 else 's'} will be sent again from {outbox.path.parent.absolute()}.")
