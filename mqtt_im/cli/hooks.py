"""`mqtt-im hooks …`: webhooks that failed too often, also beside a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import peewee
import typer

from mqtt_im.cli.options import ConfigFile, Overrides, tell_where
from mqtt_im.cli.places import place_for
from mqtt_im.config import load
from mqtt_im.hooks import outbox, webpush
from mqtt_im.hooks.outbox import Outbox
from mqtt_im.protocol.errors import StoreError

app = typer.Typer(help="List webhooks that were put aside, and send them again.", no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _outboxes(config: Path | None, overrides: list[str] | None) -> Iterator[dict[str, Outbox]]:
    """Those of webhooks and of Web Push by name, as far as a server has made them."""
    place = place_for(load(config, overrides or ()))
    names = [name for name in (outbox.NAME, webpush.NAME) if place.has(name)]
    if not names:
        raise StoreError("there is no outbox of webhooks; has a server with webhooks run on this data_dir or database?")
    with ExitStack() as stack:
        opened: dict[str, Outbox] = {}
        for name in names:
            opened[name] = Outbox(place, name)
            stack.callback(opened[name].close)
        try:
            yield opened
        except peewee.PeeweeException as error:
            raise StoreError(f"{opened[names[0]].where}: {error}") from error


@app.command("list")
def list_dead(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """List what was put aside, one a line: event, user or log row, how often it was tried, why it failed; with tabs between.

    The event of what browsers are told is `webpush`.
    """
    with _outboxes(config, overrides) as outboxes:
        for name, each in outboxes.items():
            tell_where(each.where)
            for dead in each.dead():
                event = webpush.NAME if name == webpush.NAME else dead.event
                typer.echo("\t".join((event, dead.subject, str(dead.attempts), dead.error)))


@app.command()
def retry(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Send what was put aside again, from the first attempt on."""
    with _outboxes(config, overrides) as outboxes:
        count = sum(each.revive() for each in outboxes.values())
        where = " and ".join(each.where for each in outboxes.values())
    typer.echo(f"{count} webhook{'' if count == 1 else 's'} will be sent again from {where}.")
