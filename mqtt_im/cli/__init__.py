"""Floor 4: the command line. One file a command; this one turns how they end into exit codes and one line on stderr.

Exit codes: 0 well; 1 it failed; 2 the call or the configuration is wrong.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from mqtt_im import __version__
from mqtt_im.cli import bench, chat, check_config, demo, doctor, hooks, serve, store, user
from mqtt_im.protocol.errors import ConfigError, MqttImError

FAILED = 1
WRONG_CALL = 2

# The class of all mistakes in a call; typer shows only its children by name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="mqtt-im",
    help="An instant-messaging server that any MQTT client can trust.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mqtt-im {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
) -> None:
    pass


app.command("serve")(serve.serve)
app.command("check-config")(check_config.check_config)
app.add_typer(user.app, name="user")
app.add_typer(store.app, name="store")
app.add_typer(hooks.app, name="hooks")
app.command("doctor")(doctor.doctor)
app.command("chat")(chat.chat)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its code. Files that it makes are for its own user alone: they hold messages."""
    os.umask(0o077)
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code. What went wrong stands on stderr, one line a mistake, without a traceback."""
    try:
        return app(arguments, prog_name="mqtt-im", standalone_mode=False) or 0
    except ConfigError as error:
        _complain(*error.mistakes)
        return WRONG_CALL
    except MqttImError as error:
        _complain(*error.message.splitlines())
        return WRONG_CALL if error.code in ("name", "password") else FAILED
    except _UsageError as error:
        _complain(" ".join(getattr(error, "format_message", error.__str__)().split()))
        return WRONG_CALL
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        _complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return FAILED


def _complain(*lines: str) -> None:
    for line in lines:
        typer.echo(f"mqtt-im: {line}", err=True)
