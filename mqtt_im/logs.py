"""Logging: to stderr, for people or as JSON lines; it never makes anybody wait, and never runs faster than anybody can read.

A line says what happened and whom it concerns, never a body or a secret. Fields are given as `extra={"user": …}` and stand behind
the message as `user=alice`, or as members of the JSON object; the last of them is `node`, where there may be several. Lines are
written by a thread of their own: where nobody reads stderr any more, they wait within a bound, then they are dropped and counted,
and a line tells how many once somebody reads again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from mqtt_im.config import LogConfig
from mqtt_im.config.peers import network_of

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MAX_TEXT: Final = 1_000
"""Characters of a message, and of each of its fields."""
MAX_EXCEPTION: Final = 16_000
"""Characters of a traceback, of which the beginning and the end are shown."""
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Lines that wait for somebody to read stderr."""
_FLUSH_S: Final = 1.0
"""So long a process that ends waits for its last lines to leave."""
_RETRY_S: Final = 0.05
_AT_ONCE_BYTES: Final = 64 * 1024
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_QUIET: Final = ("amqtt", "transitions", "asyncio", "uvicorn", "websockets", "peewee")
"""Libraries that are shown from warnings on only, whatever our own level is."""
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


def set_up(config: LogConfig) -> None:
    """Send all logging of this process to stderr. May be called again, to change level or format."""
    root = logging.getLogger()
    handler = next((old for old in root.handlers if isinstance(old, LineHandler)), None) or LineHandler(LineWriter(_to_stderr))
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter(colour=sys.stderr.isatty()))
    for old in root.handlers[:]:
        if old is not handler:
            root.removeHandler(old)
    if handler not in root.handlers:
        root.addHandler(handler)
    root.setLevel(LEVELS[config.level])
    threading.excepthook = _of_a_thread
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, LEVELS[config.level]))


def name_node(name: str) -> None:
    """Every line from now on says which node it is from."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.node = name


def dropped() -> int:
    """How many lines of this process nobody will ever see, because nobody read stderr in time."""
    return sum(handler.writer.dropped for handler in logging.getLogger().handlers if isinstance(handler, LineHandler))


def mistakes() -> int:
    """How many exceptions that nobody had expected this process has told of, or held back since there were too many."""
    return _mistakes.count


class _Mistakes:
    """Counts, on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self) -> None:
        with self._lock:
            self.count += 1


_mistakes: Final = _Mistakes()


def _of_a_thread(ended: threading.ExceptHookArgs) -> None:
    """A thread has ended by a mistake."""
    if ended.exc_value is not None and not issubclass(ended.exc_type, SystemExit):
        name = ended.thread.name if ended.thread is not None else "?"
        logging.getLogger(__name__).error("the thread %s has ended by a mistake", name, exc_info=ended.exc_value)


def _to_stderr(data: bytes) -> None:
    """Write all of it, and wait for whoever reads. Not through `sys.stderr`, whose lock must not be held meanwhile."""
    descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody else has made the pipe non-blocking
            time.sleep(_RETRY_S)


class LineWriter:
    """Writes lines in a thread of its own. `put` returns at once, whatever becomes of the line."""

    def __init__(self, write: Callable[[bytes], None], max_bytes: int = MAX_WAITING_BYTES) -> None:
        """`write` takes bytes and may wait as long as it likes."""
        self._write = write
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._told = 0
        self.dropped = 0
        """Lines for which there was no room, and those that could not be written."""
        self.tell_dropped: Callable[[int], str] = "{} log lines were dropped".format

    def put(self, line: str) -> None:
        """Have the line written after those before it, or drop it where too much waits already."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._bytes + len(data) > self._max_bytes:
                self.dropped += 1
                return
            self._lines.append(data)
            self._bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until what was put is written; False where that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._busy, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                self._busy = True
                lines, size = [], 0
                while self._lines and size < _AT_ONCE_BYTES:
                    lines.append(self._lines.popleft())
                    size += len(lines[-1])
                self._bytes -= size
            try:
                self._write(b"".join(lines))
            except Exception:  # noqa: BLE001 - nobody is there any more; and there is nowhere to tell anything else
                with self._changed:
                    self.dropped += len(lines)
                continue
            with self._changed:
                missing, self._told = self.dropped - self._told, self.dropped
            if missing:
                with contextlib.suppress(Exception):
                    self._write(self.tell_dropped(missing).encode("utf-8", "backslashreplace") + b"\n")


class LineHandler(logging.Handler):
    """Formats where it is called, and leaves the writing to a `LineWriter`."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer
        self.node = ""
        """Of several nodes, the one that writes; empty: there is but one."""
        writer.tell_dropped = self._tell_dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Have the record written, soon."""
        if record.exc_info:
            _mistakes.add()
        self._named(record)
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - what can't be shown must not break what wanted to show it
            line = self.format(
                self._named(_record(logging.ERROR, f"a log line of {record.name} can't be shown: {type(error).__name__}"))
            )
        self.writer.put(line)

    def _named(self, record: logging.LogRecord) -> logging.LogRecord:
        if self.node:
            record.node = self.node
        return record

    def flush(self) -> None:
        """Wait for a moment until the lines have left."""
        self.writer.flush()

    def _tell_dropped(self, lines: int) -> str:
        record = _record(logging.WARNING, "log lines were dropped: nobody read stderr in time")
        record.lines = lines
        return self.format(self._named(record))


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, message, (), None)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`, texts cut where they are long."""
    return {
        name: value if isinstance(value, int | float | None) else clipped(str(value))
        for name, value in record.__dict__.items()
        if name not in _STANDARD
    }


def clipped(text: str, most: int = MAX_TEXT) -> str:
    """The text, or its beginning and its end where it has more than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}… {len(text) - 2 * half} more …{text[-half:]}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clipped(record.getMessage()),
            **fields(record),
        }
        if record.exc_info:
            line["exception"] = clipped(self.formatException(record.exc_info), MAX_EXCEPTION)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level, message and fields, with a colour for what matters on a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; a client's control characters are shown as escapes."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = [clipped(record.getMessage()), *(f"{name}={value}" for name, value in fields(record).items())]
        text = "".join(part if part.isprintable() else repr(part)[1:-1] for part in " ".join(parts))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname.lower():7} {text}"
        if self._colour and record.levelname in _COLOURS:
            line = f"{_COLOURS[record.levelname]}{line}\x1b[0m"
        if record.exc_info:
            line += "\n" + clipped(self.formatException(record.exc_info), MAX_EXCEPTION)
        return line


class Flood:
    """How many lines of each kind each source has caused lately, so that a flood from one hides nothing of the others."""

    MAX_ENTRIES: Final = 4096

    def __init__(self, lines: int, period_s: float) -> None:
        """Of each kind `lines` in `period_s` seconds, from each source."""
        self._lines = lines
        self._period_s = period_s
        self._windows: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        """When a window began, and how many lines it had."""

    def admit(self, kind: str, source: str, now: float) -> int | None:
        """None where the line is to be held back; else how many were held back in the window before."""
        key, held_back = (kind, source), 0
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = [now, 0]
            if len(self._windows) > self.MAX_ENTRIES:
                self._windows.popitem(last=False)
        elif now - window[0] >= self._period_s:
            held_back = max(0, int(window[1]) - self._lines)
            window[:] = [now, 0]
        self._windows.move_to_end(key)
        window[1] += 1
        return held_back if window[1] <= self._lines else None


class RateLimited:
    """A logger for what clients can cause, or what is tried again and again.

    Of each kind of line a few a minute from each address, then one that says how many were held back.
    """

    def __init__(
        self,
        logger: logging.Logger,
        lines_per_minute: int = 20,
        on_suppressed: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._flood = Flood(lines_per_minute, 60)
        self._on_suppressed = on_suppressed
        self._clock = clock

    def info(self, message: str, **values: Any) -> None:
        """Log at info level; `message` is constant text and names the kind, `values` are its fields, `address` among them."""
        self._log(logging.INFO, message, values)

    def warning(self, message: str, **values: Any) -> None:
        """Log at warning level; `message` is constant text and names the kind, `values` are its fields, `address` among them."""
        self._log(logging.WARNING, message, values)

    def error(self, message: str, **values: Any) -> None:
        """Log at error level; `message` is constant text and names the kind, `values` are its fields, `address` among them."""
        self._log(logging.ERROR, message, values)

    def exception(self, message: str, error: BaseException, **values: Any) -> None:
        """The same with the traceback of an exception."""
        self._log(logging.ERROR, message, values, error)

    def _log(self, level: int, message: str, values: dict[str, Any], error: BaseException | None = None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        held_back = self._flood.admit(message, network_of(str(values.get("address", ""))), self._clock())
        if held_back is None:
            if error is not None:
                _mistakes.add()
            if self._on_suppressed is not None:
                self._on_suppressed()
            return
        if held_back:
            values = {**values, "held_back": held_back}
        self._logger.log(level, message, extra=values, exc_info=error)
