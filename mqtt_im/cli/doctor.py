"""`mqtt-im doctor`: looks at what a server needs and says what to mend. Works beside a running one."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import typer

from mqtt_im.accounts.journal import NAME
from mqtt_im.accounts.table import Accounts
from mqtt_im.cli import versions
from mqtt_im.cli.options import ConfigFile, Overrides
from mqtt_im.cli.places import place_for
from mqtt_im.cli.trial import tokens, trial
from mqtt_im.config import Address, Config, certificates, load, parse_bind
from mqtt_im.config.addresses import bind_problem
from mqtt_im.config.checks import binds
from mqtt_im.protocol.errors import ConfigError, MqttImError
from mqtt_im.store.folder import FolderLock

_SPARE_FILES = 200
"""Open files beside the connections: databases, listeners, log."""
_LITTLE_SPACE = 1 << 30
_NETWORK_FILE_SYSTEMS = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"))
_MANY_FILES = 20
_SOON = timedelta(days=14)
_UNLIKELY = 4_102_444_800
"""2100-01-01."""
_CLOCK_ERROR = 5
"""`adjtimex` returns it while the clock is not synchronised (TIME_ERROR)."""
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
    folder = Path(config.data_dir).absolute()
    yield Finding("ok", f"a server is running on data_dir {folder}" if running else f"no server is running on data_dir {folder}")
    yield from (Finding("mend", mistake) for mistake in trial(config))
    yield from _examine_folder(Path(config.data_dir))
    yield from _examine_files(Path(config.data_dir))
    yield from _examine_database(config)
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


def _examine_files(folder: Path) -> Iterator[Finding]:
    """Files that the one who owns the folder, and so runs the server, can't open: often made by root with a command."""
    if not folder.is_dir():
        return
    owner, found = folder.stat().st_uid, 0
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        about = file.stat()
        if about.st_uid != owner and not about.st_mode & 0o002:
            yield Finding("mend", f"{file} belongs to {_name(about.st_uid)}: the server, as {_name(owner)}, can't write it")
        elif os.geteuid() and not os.access(file, os.R_OK | os.W_OK):
            yield Finding("mend", f"{file} can't be read and written by {_name(os.geteuid())}")
        else:
            continue
        found += 1
        if found == _MANY_FILES:
            yield Finding("mend", "and perhaps more files of that kind")
            return


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _file_system(path: Path) -> str:
    """The type of the file system that holds a path; empty where the system does not tell."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines]
    holding = [(len(point), kind) for point, kind in mounts if path == Path(point) or Path(point) in path.parents]
    return max(holding)[1] if holding else ""


def _examine_database(config: Config) -> Iterator[Finding]:
    if not config.store.url:
        return
    from mqtt_im.opening import database_of
    from mqtt_im.postgres import findings

    try:
        for verdict, text in findings.examine(database_of(config)):
            yield Finding(verdict, text)
    except ConfigError:
        return  # it is told with the other mistakes of the configuration
    except MqttImError as error:
        yield Finding("mend", error.message)


def _examine_accounts(config: Config) -> Iterator[Finding]:
    if config.auth.mode == "open":
        yield Finding("note", "auth.mode is open: anybody on this machine is anybody")
        return
    if config.auth.mode != "accounts":
        yield from _examine_elsewhere(config)
        return
    try:
        place = place_for(config)
        if not place.has(NAME):
            yield Finding("note", "there are no accounts yet: mqtt-im user add NAME")
            return
        accounts = Accounts(place)
        count = len(accounts.all())
        accounts.close()
    except MqttImError as error:
        yield Finding("mend", f"the accounts can't be read: {error.message}")
        return
    yield Finding("ok" if count else "note", f"{count} accounts" if count else "there are no accounts yet: mqtt-im user add NAME")


def _examine_elsewhere(config: Config) -> Iterator[Finding]:
    """Who says who may log in, where that is not this server."""
    if config.auth.mode == "jwt":
        if not any(tokens(config)):
            yield Finding("ok", f"auth.jwt.key: {config.auth.jwt.key} can be used")
        return
    parts = urlsplit(config.auth.http.url)
    address = Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    if _answers(address):
        yield Finding("ok", f"auth.http.url: {address} can be reached")
    else:
        yield Finding("mend", f"auth.http.url: {address} can't be reached; nobody can log in")


def _examine_ports(config: Config, running: bool) -> Iterator[Finding]:
    for key, text in binds(config).items():
        address = parse_bind(text)
        if address is None:
            continue
        if running:
            reached = _answers(address) if address.port else True
            yield Finding("ok" if reached else "mend", f"{key}: {address} " + ("is served" if reached else "does not answer"))
            if reached and address.port and key in _greeted(config):
                yield _examine_versions(key, address)
        else:
            problem = bind_problem(address)
            yield Finding(
                "mend" if problem else "ok", f"{key}: {address} " + (f"can't be used: {problem}" if problem else "is free")
            )


def _greeted(config: Config) -> list[str]:
    """The listeners that anybody can speak MQTT with, who has neither a certificate nor a proxy."""
    if config.mqtt.proxy_protocol:
        return []
    return ["mqtt.bind"] if config.mqtt.tls.client_ca else ["mqtt.bind", "mqtt.tls.bind"]


def _examine_versions(key: str, address: Address) -> Finding:
    """What clients can speak there: another program, or an older server, may have the port."""
    try:
        found = versions.spoken(_near(address), tls=key == "mqtt.tls.bind")
    except OSError:
        found = []
    if len(found) == len(versions.ALL):
        return Finding("ok", f"{key}: it speaks MQTT {' and '.join(found)}")
    spoken = f"MQTT {' and '.join(found)} alone" if found else "no MQTT"
    return Finding("mend", f"{key}: what answers speaks {spoken}; see which program has the port, or restart the server")


def _near(address: Address) -> Address:
    """Where this machine reaches what listens everywhere."""
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)  # noqa: S104 - compared


def _answers(address: Address) -> bool:
    try:
        socket.create_connection(_near(address), timeout=2).close()
    except OSError:
        return False
    return True


def _examine_tls(config: Config) -> Iterator[Finding]:
    for section, tls in (("mqtt.tls", config.mqtt.tls), ("http.tls", config.http.tls)):
        if not tls.bind:
            continue
        if problem := certificates.pair_problem(tls.cert, tls.key):
            yield Finding("mend", f"{section}: {problem}")
            continue
        yield Finding("ok", f"{section}: certificate and key go together")
        if Path(tls.key).stat().st_mode & 0o007:
            yield Finding("mend", f"{section}.key: everybody on this machine can read {tls.key}: chmod o= {tls.key}")
        yield from _examine_end(f"{section}.cert", tls.cert, certificates.certificate_ends)
    tls_with_clients = config.mqtt.tls
    if tls_with_clients.bind and tls_with_clients.client_ca:
        yield from _examine_end("mqtt.tls.client_ca", tls_with_clients.client_ca, certificates.certificate_ends)
        if tls_with_clients.crl:
            yield from _examine_end("mqtt.tls.crl", tls_with_clients.crl, certificates.revocations_end)


def _examine_end(key: str, file: str, ends: Callable[[str], list[datetime]]) -> Iterator[Finding]:
    """How long what is in a file is good. Of a list of revocations nobody renews the days before its end."""
    try:
        end = min(ends(file))
    except (OSError, ValueError) as error:
        yield Finding("mend", f"{key}: {error}")
        return
    left = end - datetime.now(UTC)
    when = f"{end:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        yield Finding("mend", f"{key}: {file} has expired, at {when}")
    elif left < _SOON and ends is certificates.certificate_ends:
        yield Finding("mend", f"{key}: {file} expires in {left.days} days, at {when}")
    else:
        yield Finding("ok", f"{key}: good until {when}")


def _examine_clock(folder: Path) -> Iterator[Finding]:
    now = time.time()
    newest = max((file.stat().st_mtime for file in folder.glob("*.db*")), default=0.0)
    if now < _RELEASED:
        yield Finding("mend", "the clock was never set; messages would carry its time")
    elif now > _UNLIKELY:
        yield Finding("mend", "the clock is decades ahead; messages would carry its time")
    elif newest > now + 60:
        yield Finding("mend", f"the clock is {int(newest - now)} s behind the store's newest file")
    else:
        yield Finding("ok", f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC")
        if _synchronised() is False:
            yield Finding("note", "nothing synchronises this machine's clock (NTP); expiry and the order by time depend on it")


def _synchronised() -> bool | None:
    """Whether the kernel says that its clock follows another one; None where it does not tell (adjtimex, STA_UNSYNC)."""
    if sys.platform != "linux":
        return None
    timex = ctypes.create_string_buffer(512)  # the modes, first in it, are 0: nothing is changed
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    return None if state < 0 else state != _CLOCK_ERROR


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
