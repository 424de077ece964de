"""`mqtt-im doctor`: looks at what a server needs and says what to mend. Works beside a running one."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import typer

from mqtt_im.accounts.table import FILE_NAME, Accounts
from mqtt_im.cli.options import ConfigFile, Overrides
from mqtt_im.config import Address, Config, load, parse_bind
from mqtt_im.config.addresses import bind_problem
from mqtt_im.config.checks import binds
from mqtt_im.protocol.errors import MqttImError
from mqtt_im.store.folder import FolderLock

_SPARE_FILES = 200
"""Open files beside the connections: databases, listeners, log."""
_LITTLE_SPACE = 1 << 30
_NETWORK_FILE_SYSTEMS = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"))
_RELEASED = 1_735_689_600
"""2025-01-01, before the first release: a clock that says less was never set."""


class Finding(NamedTuple):
    """One line of the report."""

    verdict: Literal["ok", "note", "mend"]
    text: str


def doctor(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Look at configuration, store, ports, clock and file limits, and say what to mend."""
    loaded = load(config, overrides or ())
    typer.echo("ok    the configuration is right")
    bad = 0
    for finding in examine(loaded):
        typer.echo(f"{finding.verdict:5} {finding.text}")
        bad += finding.verdict == "mend"
    if bad:
        raise MqttImError("doctor", f"{bad} thing{'s' if bad > 1 else ''} to mend")


def examine(config: Config) -> Iterator[Finding]:
    """Everything that there is to say about a valid configuration on this machine."""
    running = FolderLock.is_held(config.data_dir)
    yield Finding(
        "ok", f"a server is running on data_dir {config.data_dir}" if running else "no server is running on this data_dir"
    )
    yield from _examine_folder(Path(config.data_dir))
    yield from _examine_accounts(config)
    yield from _examine_ports(config, running)
    yield from _examine_tls(config)
    yield from _examine_clock(Path(config.data_dir))
    yield from _examine_file_limit(config)


def _examine_folder(folder: Path) -> Iterator[Finding]:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        yield Finding("mend", f"data_dir: {existing} can't be written by this user")
        return
    free = shutil.disk_usage(existing).free
    if free < _LITTLE_SPACE:
        yield Finding("mend", f"data_dir: only {free >> 20} MiB are free; nothing is acknowledged once the disk is full")
    else:
        yield Finding("ok", f"data_dir is writable, {free >> 30} GiB are free")
    kind = _file_system(existing)
    if kind in _NETWORK_FILE_SYSTEMS:
        yield Finding("mend", f"data_dir lies on {kind}; SQLite needs a local file system")


def _file_system(path: Path) -> str:
    """The type of the file system that holds a path; empty where the system does not tell."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines]
    holding = [(len(point), kind) for point, kind in mounts if path == Path(point) or Path(point) in path.parents]
    return max(holding)[1] if holding else ""


def _examine_accounts(config: Config) -> Iterator[Finding]:
    if config.auth.mode != "accounts":
        yield Finding("note", "auth.mode is open: anybody on this machine is anybody")
        return
    if not (Path(config.data_dir) / FILE_NAME).exists():
        yield Finding("note", "there are no accounts yet: mqtt-im user add NAME")
        return
    try:
        accounts = Accounts(config.data_dir)
        count = len(accounts.all())
        accounts.close()
    except MqttImError as error:
        yield Finding("mend", f"the accounts can't be read: {error.message}")
        return
    yield Finding("ok" if count else "note", f"{count} accounts" if count else "there are no accounts yet: mqtt-im user add NAME")


def _examine_ports(config: Config, running: bool) -> Iterator[Finding]:
    for key, text in binds(config).items():
        address = parse_bind(text)
        if address is None:
            continue
        if running:
            reached = _answers(address) if address.port else True
            yield Finding("ok" if reached else "mend", f"{key}: {address} " + ("is served" if reached else "does not answer"))
        else:
            problem = bind_problem(address)
            yield Finding(
                "mend" if problem else "ok", f"{key}: {address} " + (f"can't be used: {problem}" if problem else "is free")
            )


def _answers(address: Address) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - to be compared with
    try:
        socket.create_connection((host, address.port), timeout=2).close()
    except OSError:
        return False
    return True


def _examine_tls(config: Config) -> Iterator[Finding]:
    tls = config.mqtt.tls
    if not tls.bind:
        return
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ssl.SSLError) as error:
        yield Finding("mend", f"mqtt.tls: certificate and key can't be loaded: {error}")
    else:
        yield Finding("ok", "mqtt.tls: certificate and key go together")


def _examine_clock(folder: Path) -> Iterator[Finding]:
    now = time.time()
    newest = max((file.stat().st_mtime for file in folder.glob("*.db*")), default=0.0)
    if now < _RELEASED:
        yield Finding("mend", "the clock was never set; messages would carry its time")
    elif newest > now + 60:
        yield Finding("mend", f"the clock is {int(newest - now)} s behind the store's newest file")
    else:
        yield Finding("ok", f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC")


def _examine_file_limit(config: Config) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < config.limits.max_connections + _SPARE_FILES:
        room = max(0, hard - _SPARE_FILES)
        yield Finding(
            "note" if room else "mend",
            f"{hard} open files are allowed: {room} connections fit, fewer than limits.max_connections (LimitNOFILE, ulimit -n)",
        )
    else:
        yield Finding("ok", "enough open files are allowed for limits.max_connections")
