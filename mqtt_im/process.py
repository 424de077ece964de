"""The process that a server runs in: its ports are free, its interpreter is tuned, it may open many files."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import sys

from mqtt_im import memory
from mqtt_im.config import Config, parse_bind
from mqtt_im.config.addresses import bind_problem
from mqtt_im.config.checks import binds
from mqtt_im.protocol.errors import MqttImError
from mqtt_im.shares import USUAL_MB, Bounds


def check_ports(config: Config) -> None:
    """Return where every listener's address is free. `MqttImError` with code `port` names all that are not."""
    problems = []
    for key, text in binds(config).items():
        address = parse_bind(text)
        problem = bind_problem(address) if address is not None else None
        if problem:
            taken = problem == os.strerror(errno.EADDRINUSE)
            hint = f" (another program uses it: stop that, or choose another with --set {key}=HOST:PORT)" if taken else ""
            problems.append(f"{key}: can't listen on {address}: {problem}{hint}")
    if problems:
        raise MqttImError("port", "\n".join(problems))


def tune_interpreter(memory_mb: int = USUAL_MB) -> None:
    """Settings of the interpreter that suit two threads that share it and make many short-lived objects, in so much memory.

    Measured, 50 pairs with 20 messages in flight (`python -m bench pairs`): collecting after every 700 new objects costs a
    tenth of the CPU time, since next to nothing here is cyclic; and a thread that waits the default 5 ms for its turn is what
    the latency of a message then consists of. But a look stops everything, for 0.4 to 2 µs an object where many have come to
    stay, such as connections: so it comes at 10,000, and those that have survived it are looked at again, with those that are
    new then, after one. `memory.look_at_new` looks at them before they are more.
    """
    collect_seldom()
    memory.share_blocks(Bounds(memory_mb).less(memory.LARGE))
    sys.setswitchinterval(0.0005)


def collect_seldom() -> None:
    """What has survived two looks of the garbage collector is not looked at again (see `tune_interpreter`)."""
    gc.set_threshold(10_000, 1, 10_000)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
