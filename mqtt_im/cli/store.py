"""`mqtt-im store …`: looks after the stored data, also beside a running server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mqtt_im.accounts.journal import NAME as ACCOUNTS
from mqtt_im.cli.options import ConfigFile, Overrides
from mqtt_im.config import Config, load
from mqtt_im.files import tools as file_tools
from mqtt_im.opening import database_of
from mqtt_im.protocol.errors import ConfigError, StoreError
from mqtt_im.store.policy import Removed
from mqtt_im.store.sqlite import backup as backups
from mqtt_im.store.sqlite import check as checks
from mqtt_im.store.sqlite.tables.unchanging import readable

if TYPE_CHECKING:
    from mqtt_im.postgres.connecting import Database

app = typer.Typer(help="Check, back up, restore and compact the stored data.", no_args_is_help=True, rich_markup_mode=None)

UPGRADE_S: Final = 3600.0
"""So long one statement of an upgrade may take."""
NEW_EPOCH_S: Final = 15.0
"""So long nodes in the middle of a batch are waited for; those that stand still are left their locks for less."""
File = Annotated[Path, typer.Argument(metavar="FILE")]
Files = Annotated[Path | None, typer.Option("--files", metavar="FOLDER", help="The uploaded files that messages carry, too.")]


def _shared(config: Path | None, overrides: list[str] | None, instead: str) -> Database:
    """The database, where the store is in PostgreSQL. `instead` says what does the same for SQLite."""
    loaded = load(config, overrides or ())
    if not loaded.store.url:
        raise ConfigError([f"store.url: the store is in SQLite, {instead}"])
    return database_of(loaded)


def _loaded(config: Path | None, overrides: list[str] | None, use: str) -> Config:
    """The configuration, where its store is SQLite. `use` names what does the same for PostgreSQL."""
    loaded = load(config, overrides or ())
    if loaded.store.url:
        raise ConfigError([f"store.url: the store is in PostgreSQL; use {use}"])
    return loaded


def _check_database(config: Config) -> None:
    from mqtt_im.store.postgres.check import check as check_database

    database = database_of(config)
    report = check_database(database)
    typer.echo(
        f"{database.where}: {report.rows} rows: {report.messages} messages in {report.conversations} conversations, "
        f"{report.items} items in {report.inboxes} inboxes."
    )
    if report.problems:
        raise StoreError("\n".join(report.problems))
    typer.echo("Every number follows the one before it, and every inbox holds what the log says.")


@app.command()
def check(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Verify the promises on what is stored: no gap in any seq or pos, no id used twice, projections as the log says."""
    loaded = load(config, overrides or ())
    if loaded.store.url:
        _check_database(loaded)
        return
    folder = Path(loaded.data_dir)
    if _has_accounts_alone(folder):
        typer.echo(f"{folder.absolute()}: accounts, and no messages yet: no server has run here.")
        return
    with readable(folder) as unchanging:
        report = checks.check(folder, unchanging)
        files = file_tools.check(loaded.files, folder, unchanging)
    typer.echo(
        f"{folder.absolute()}: {report.rows} rows: {report.messages} messages in {report.conversations} conversations, "
        f"{report.items} items in {report.inboxes} inboxes."
    )
    if files.files or files.unknown:
        idle = f"; {files.unknown} contents belong to no file" if files.unknown else ""
        typer.echo(f"{files.files} files with {files.bytes} bytes, {files.carried} of them carried by messages{idle}.")
    if report.problems or files.problems:
        raise StoreError("\n".join(report.problems + files.problems))
    typer.echo("Every number follows the one before it, and the projections are what the log says.")


def _has_accounts_alone(folder: Path) -> bool:
    """Whether accounts were made for a server that has never run, which leaves its log first of all."""
    names = [file.name for file in folder.glob("*")]
    return f"{ACCOUNTS}.db" in names and all(name.startswith(f"{ACCOUNTS}.db") for name in names)


@app.command()
def compact(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Remove what store.retention_days and store.retention_messages let go, now; a running server does it between its work."""
    from mqtt_im.bounds import retention_policy
    from mqtt_im.search.thread import refresh
    from mqtt_im.store.sqlite import upkeep

    loaded = load(config, overrides or ())
    policy = retention_policy(loaded)
    if loaded.store.url:
        from mqtt_im.store.postgres import upkeep as postgres_upkeep

        removed = postgres_upkeep.compact(database_of(loaded), policy)
    elif _has_accounts_alone(Path(loaded.data_dir)):
        removed = Removed()
    else:
        removed = upkeep.compact(Path(loaded.data_dir), policy, loaded.store.synchronous, follow=refresh)
    typer.echo(f"Removed {removed.messages} messages with {removed.items} items, and {removed.rows} rows of the log.")
    if not loaded.store.url:
        typer.echo(f"The folder is {Path(loaded.data_dir).absolute()}.")
    if not policy.removes:
        typer.echo("All messages are kept: store.retention_days and store.retention_messages are 0.")
    if not removed.scoured:
        typer.echo("Somebody reads the store just now, so what was removed will be wiped from its files only later.")


@app.command()
def new_epoch(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Give the store in PostgreSQL a new name, after commits were lost: clients forget their positions and start over."""
    database = _shared(config, overrides, "where `mqtt-im store restore` does it")
    from mqtt_im.postgres.nodes import begin_anew

    with database.connect("command", patience_s=NEW_EPOCH_S) as connection:
        epoch, late = begin_anew(database, connection)
    typer.echo(f"{database.where}: the epoch is {epoch} now. Running nodes have sent their clients away, who start over.")
    if late:
        typer.echo(f"Those that have not yet, and do when they go on: {', '.join(late)}.")


@app.command()
def upgrade(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Bring the tables in PostgreSQL up to this version, once no node of an older one runs; SQLite's files need no command."""
    database = _shared(config, overrides, "which the server brings up to date when it starts")
    from mqtt_im.postgres.upgrading import upgrade as upgrade_tables

    with database.connect("upgrade", patience_s=UPGRADE_S) as connection:
        before, after = upgrade_tables(database, connection)
    what = "nothing was to do" if before == after else f"it was {before}"
    typer.echo(f"{database.where}: the tables are those of this version (schema {after}; {what}).")


@app.command()
def copy(
    target: Annotated[str, typer.Option("--to", metavar="WHERE", help="A data_dir, or a store.url; nothing may be there.")],
    source: Annotated[str, typer.Option("--from", metavar="WHERE", help="The same; else the configured store.")] = "",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Move a whole store from SQLite to PostgreSQL or back, with every server stopped; uploaded files are not copied."""
    from mqtt_im.copying import copy_store

    if not source:
        loaded = load(config, overrides or ())
        source = loaded.store.url or loaded.data_dir
    with ExitStack() as stack:

        def start(rows: int) -> Callable[[int], None]:
            if not sys.stderr.isatty():
                return lambda _: None
            bar = stack.enter_context(typer.progressbar(length=max(rows, 1), label="copying", file=sys.stderr))
            return bar.update

        copied = copy_store(source, target, start)
    typer.echo(f"{copied.target} holds what {copied.source} holds, under a new epoch: clients start over once.")
    typer.echo("Not copied: uploaded files and webhooks that wait. The search index is made by the first server.")


@app.command()
def backup(file: File, files: Files = None, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Copy messages and accounts, as they are at one moment, into FILE, which must not exist yet."""
    loaded = _loaded(config, overrides, use="pg_dump")
    folder = Path(loaded.data_dir)
    backups.backup(folder, file)
    typer.echo(f"{file} holds messages and accounts of {folder.absolute()}.")
    if files is not None:
        count = file_tools.copy_out(loaded.files, folder, files)
        typer.echo(f"{files} holds the {count} files that messages carry.")
    left_out = "MQTT sessions, retained plain messages, webhooks that wait" + (
        ", uploaded files (--files)" if files is None else ""
    )
    typer.echo(f"Not in it: {left_out}.")
    typer.echo(f"`mqtt-im store restore {file}` puts them into an empty data_dir.")


@app.command()
def restore(file: File, files: Files = None, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Put a backup into data_dir, which must not hold messages yet; what else another store has left there is moved aside."""
    loaded = _loaded(config, overrides, use="pg_restore")
    folder = Path(loaded.data_dir)
    if files is not None and not files.is_dir():
        raise StoreError(f"{files}: there is no such folder")
    left = backups.restore(file, folder)
    if files is not None:
        file_tools.copy_in(loaded.files, folder, files)
    typer.echo(f"{folder.absolute()} holds what was in {file}.")
    if left is not None:
        typer.echo(f"What another store had left there is in {left} now.")
