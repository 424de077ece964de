"""Logging: to stderr, for people or as JSON lines, and never faster than anybody can read.

A line says what happened and whom it concerns, never a body or a secret. Fields are given as `extra={"user": …}` and stand behind
the message as `user=alice`, or as members of the JSON object.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from mqtt_im.config import LogConfig

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_QUIET: Final = ("amqtt", "transitions", "asyncio", "uvicorn", "websockets", "peewee")
"""Libraries that are shown from warnings on only, whatever our own level is."""
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


def set_up(config: LogConfig) -> None:
    """Send all logging of this process to stderr. May be called again, to change level or format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter(colour=sys.stderr.isatty()))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[config.level])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, LEVELS[config.level]))


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`."""
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level, message and fields, with a colour for what matters on a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; a client's control characters are shown as escapes."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = [record.getMessage(), *(f"{name}={value}" for name, value in fields(record).items())]
        text = "".join(part if part.isprintable() else repr(part)[1:-1] for part in " ".join(parts))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname.lower():7} {text}"
        if self._colour and record.levelname in _COLOURS:
            line = f"{_COLOURS[record.levelname]}{line}\x1b[0m"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class RateLimited:
    """A logger for what clients can cause: of each kind of line a few a minute, then one that says how many were held back."""

    def __init__(
        self,
        logger: logging.Logger,
        lines_per_minute: int = 20,
        on_suppressed: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._limit = lines_per_minute
        self._on_suppressed = on_suppressed
        self._clock = clock
        self._windows: dict[str, list[float]] = {}

    def info(self, message: str, **values: Any) -> None:
        """Log at info level; `message` is constant text and names the kind, `values` are its fields."""
        self._log(logging.INFO, message, values)

    def warning(self, message: str, **values: Any) -> None:
        """Log at warning level; `message` is constant text and names the kind, `values` are its fields."""
        self._log(logging.WARNING, message, values)

    def _log(self, level: int, message: str, values: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        now = self._clock()
        window = self._windows.setdefault(message, [now, 0])
        if now - window[0] >= 60:
            held_back = int(window[1]) - self._limit
            window[:] = [now, 0]
            if held_back > 0:
                values = {**values, "held_back": held_back}
        window[1] += 1
        if window[1] <= self._limit:
            self._logger.log(level, message, extra=values)
        elif self._on_suppressed is not None:
            self._on_suppressed()
