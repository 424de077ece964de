"""`mqtt-im user …`: accounts, also beside a running server, which sees the change at once."""

from __future__ import annotations

import asyncio
import getpass
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mqtt_im.accounts.passwords import make_password
from mqtt_im.accounts.table import Accounts
from mqtt_im.cli.options import ConfigFile, Overrides, tell_where
from mqtt_im.cli.places import place_for
from mqtt_im.config import Config, load
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.store.folder import FolderLock
from mqtt_im.store.sqlite.kept import kept_by
from mqtt_im.store.sqlite.tables.files import LOG_FILE
from mqtt_im.store.sqlite.tables.unchanging import readable
from mqtt_im.store.tools.kept import Kept
from mqtt_im.tables import Folder

app = typer.Typer(help="Add, change, list, show and remove accounts.", no_args_is_help=True, rich_markup_mode=None)

ERASE_S = 60.0
Name = Annotated[str, typer.Argument(help="The user id: 1 to 64 of A-Z a-z 0-9 _ . -")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input; a newline at its end is not part of it.")
]


@contextmanager
def _accounts(config: Path | None, overrides: list[str] | None) -> Iterator[Accounts]:
    accounts = Accounts(place_for(load(config, overrides or ())))
    try:
        yield accounts
    finally:
        accounts.close()


@contextmanager
def _read(config: Path | None, overrides: list[str] | None) -> Iterator[Accounts]:
    """The accounts, for looking at them: nothing has to be written, also where there is no room for that."""
    loaded = load(config, overrides or ())
    with readable(Path(loaded.data_dir)) as unchanging:
        place = Folder(loaded.data_dir, unchanging=True) if unchanging and not loaded.store.url else place_for(loaded)
        accounts = Accounts(place, readonly=unchanging)
        try:
            yield accounts
        finally:
            accounts.close()


@app.command()
def add(
    name: Name,
    password_stdin: PasswordStdin = False,
    with_inbox: Annotated[
        bool, typer.Option("--with-inbox", help="Say nothing where the new account goes on with what a former one left.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make an account. Asks for its password on a terminal; else makes one and prints it."""
    with _accounts(config, overrides) as accounts:
        if accounts.exists(name):
            raise MqttImError("exists", f"there is a user {name} already")
        password, made = _new_password(password_stdin)
        accounts.add(name, password)
    if not with_inbox and _left_an_inbox(load(config, overrides or ()), name):
        typer.echo(f"Whoever logs in finds the inbox that a former {name} left: user remove {name} --erase ends both.", err=True)
    _tell(f"User {name} was added in {accounts.where}.", password if made else None)


@app.command()
def passwd(name: Name, password_stdin: PasswordStdin = False, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Change a password. Revokes the user's tokens and closes the user's connections."""
    with _accounts(config, overrides) as accounts:
        if not accounts.exists(name):
            raise MqttImError("not_found", f"there is no user {name}")
        password, made = _new_password(password_stdin)
        accounts.set_password(name, password)
    _tell(f"The password of {name} was changed in {accounts.where}.", password if made else None)


@app.command("list")
def list_users(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """List the accounts, one a line: name, when it was made, how many tokens it has; separated by tabs."""
    with _read(config, overrides) as accounts:
        tell_where(accounts.where)
        for account in accounts.all():
            typer.echo(f"{account.name}\t{_when(account.created)}\t{account.tokens}")


@app.command()
def show(name: Name, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Show when an account was made, and what the user keeps, beside what [quota] allows."""
    loaded = load(config, overrides or ())
    made = None
    if loaded.auth.mode == "accounts":
        with _read(config, overrides) as accounts:
            made = next((account.created for account in accounts.all() if account.name == name), None)
    kept = _kept(loaded, name)
    if made is None and kept is None:
        raise MqttImError("not_found", f"there is no user {name}")
    if made is not None:
        typer.echo(f"made\t{_when(made)}")
    kept = kept or Kept()
    quota = loaded.quota
    for what, figure, most in (
        ("messages", kept.messages, quota.messages),
        ("bytes", kept.bytes, quota.bytes),
        ("groups", kept.groups, 2 * quota.groups),  # own ones, and as many of others
        ("groups made", kept.made, quota.groups),
        ("devices", kept.devices, quota.devices),
        ("users blocked", kept.blocks, quota.blocks),
        ("conversations muted", kept.mutes, quota.blocks),
    ):
        typer.echo(f"{what}\t{figure}\t" + (f"of {most}" if most else "no limit"))


@app.command()
def remove(
    name: Name,
    erase: Annotated[bool, typer.Option("--erase", help="Take the user's inbox, devices and memberships along.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Remove an account and close the user's connections."""
    loaded = load(config, overrides or ())
    with _accounts(config, overrides) as accounts:
        left = erase and _left_something(loaded, name)
        if accounts.exists(name) or not left:
            accounts.remove(name)
        if erase:
            accounts.ask_erase(name)
            _wait_erased(accounts, name, loaded)
        where = accounts.where
    typer.echo(f"User {name} was removed from {where}" + (", with all that was the user's." if erase else "."))


def _kept(config: Config, name: str) -> Kept | None:
    """What the user keeps; None where nothing ever was. Raises `StoreError`."""
    if config.store.url:
        from mqtt_im.postgres.connecting import Database
        from mqtt_im.store.postgres import kept as tables

        return tables.kept_by(Database(config.store.url), name)
    folder = Path(config.data_dir)
    if not (folder / LOG_FILE).exists():
        return None
    with readable(folder) as unchanging:
        return kept_by(folder, name, unchanging)


def _left_something(config: Config, name: str) -> bool:
    """Whether the store may know the user."""
    try:
        return _kept(config, name) is not None
    except StoreError:  # the projections are new; the server that erases will see
        return True


def _left_an_inbox(config: Config, name: str) -> bool:
    """Whether the store is known to have something for who logs in by this name."""
    try:
        kept = _kept(config, name)
    except StoreError:
        return False
    return kept is not None and kept.inbox


def _wait_erased(accounts: Accounts, name: str, config: Config) -> None:
    """A server that runs erases the user, or else one that is started for it alone."""
    from mqtt_im.app import work_off

    deadline = time.monotonic() + ERASE_S
    while name in accounts.to_erase():
        if not FolderLock.is_held(config.data_dir):
            asyncio.run(work_off(config))
            break
        if time.monotonic() > deadline:
            raise StoreError(f"the server has not erased {name} within {ERASE_S:g} s; it goes on trying, also after a restart")
        time.sleep(0.1)
    if name in accounts.to_erase():
        raise StoreError(f"{name} could not be erased; the next start of the server tries again")


@app.command()
def token(
    name: Name,
    label: Annotated[str, typer.Option("--name", help="What the token is for; shown in lists.")] = "",
    days: Annotated[float | None, typer.Option(min=0.0, max=36_500, help="After so many days it is void; else never.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make a token, which a client sends in place of the password, and print it. It is shown this once."""
    expires = None if days is None else time.time_ns() // 1_000_000 + int(days * 86_400_000)
    with _accounts(config, overrides) as accounts:
        tell_where(accounts.where)
        typer.echo(accounts.add_token(name, label, expires))


@app.command()
def tokens(name: Name, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """List a user's tokens, one a line: id, name, when it was made, when it ends, `session` or `token`; separated by tabs."""
    with _read(config, overrides) as accounts:
        if not accounts.exists(name):
            raise MqttImError("not_found", f"there is no user {name}")
        for known in accounts.tokens(name):
            ends = "never" if known.expires is None else _when(known.expires)
            kind = "session" if known.session else "token"
            typer.echo(f"{known.id}\t{known.name}\t{_when(known.created)}\t{ends}\t{kind}")


@app.command()
def revoke(
    name: Name,
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `mqtt-im user tokens` shows it.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make a token void, and close the connections that use it."""
    with _accounts(config, overrides) as accounts:
        accounts.revoke(name, token)
    typer.echo(f"Token {token} of {name} was revoked.")


def _when(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))


def _new_password(from_stdin: bool) -> tuple[str, bool]:
    """A password, and whether it was made here."""
    if from_stdin:
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise MqttImError("password", "the password is not UTF-8") from None
        return text.removesuffix("\n").removesuffix("\r"), False
    if not sys.stdin.isatty():
        return make_password(), True
    password = getpass.getpass("Password (empty: make one): ")
    if not password:
        return make_password(), True
    if getpass.getpass("Again: ") != password:
        raise MqttImError("password", "the two passwords differ")
    return password, False


def _tell(sentence: str, made_password: str | None) -> None:
    """Say what was done; a password that was made is all that stands on standard output then."""
    if made_password is None:
        typer.echo(sentence)
    else:
        typer.echo(f"{sentence} Its password:", err=True)
        typer.echo(made_password)
