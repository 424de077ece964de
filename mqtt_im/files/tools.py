"""What the command line does with files, also beside a running server: check, copies for a backup, and the way back."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from mqtt_im import tables
from mqtt_im.config import FilesConfig
from mqtt_im.files.folder import Folder
from mqtt_im.files.log import carrying
from mqtt_im.files.service import FOLDER, ORPHAN_S, blobs_of
from mqtt_im.files.table import NAME, FileTable
from mqtt_im.protocol.errors import MqttImError, StoreError

MAX_PROBLEMS: Final = 100
_PIECE: Final = 1 << 20


class FilesReport(msgspec.Struct):
    """What there is, and what is wrong with it."""

    files: int = 0
    bytes: int = 0
    carried: int = 0
    """Files that a message carries."""
    unknown: int = 0
    """Contents that belong to no file; a running server removes them after an hour."""
    problems: list[str] = msgspec.field(default_factory=list)


def check(config: FilesConfig, data_dir: Path, unchanging: bool = False) -> FilesReport:
    """Every file that a message carries is there, as large as it was. Raises `StoreError`, `OSError`, `MqttImError`.

    `unchanging`: the databases are read as files that do not change.
    """
    report = FilesReport()
    place = tables.Folder(data_dir, unchanging)
    if not place.has(NAME):
        return report
    contents = dict(blobs_of(config, data_dir).all())
    with closing(FileTable(place, readonly=True)) as table:
        report.files, report.bytes = table.total()
        seen: set[str] = set()
        for message in carrying(data_dir, unchanging):
            for file, *_ in (message.extra or {})["files"]:
                known = table.get(file) is not None
                if file not in seen and known:
                    seen.add(file)
                if (not known or file not in contents) and len(report.problems) < MAX_PROBLEMS:
                    lacks = "its content is not there" if known else "nothing is known of it"
                    report.problems.append(f"{message.conv}: message {message.seq} carries the file {file}, but {lacks}")
        report.carried = len(seen)
        oldest = time.time() - ORPHAN_S
        report.unknown = sum(1 for file, came in contents.items() if came < oldest and table.get(file) is None)
    return report


def copy_out(config: FilesConfig, data_dir: Path, target: Path) -> int:
    """`target`, a new folder, has the content of every file that a message carries; how many these are.

    Code `exists` where there is such a folder. Raises `StoreError`, and leaves nothing.
    """
    blobs = blobs_of(config, data_dir)
    try:
        target.mkdir(mode=0o700)
    except FileExistsError:
        raise MqttImError("exists", f"{target} exists already") from None
    copied: set[str] = set()
    try:
        folder = Folder(target)
        for message in carrying(data_dir):
            for file, _, _, size in (message.extra or {})["files"]:
                if file in copied:
                    continue
                partial = target / "partial"
                try:
                    with closing(blobs.open(file, 0, size)) as source, partial.open("wb") as copy:
                        shutil.copyfileobj(source, copy, _PIECE)
                        copy.flush()
                        os.fsync(copy.fileno())
                except FileNotFoundError:
                    continue  # recalled meanwhile; `store check` tells what is lost
                folder.put(file, partial)
                copied.add(file)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise StoreError(f"{target}: {error}") from error
    return len(copied)


def copy_in(config: FilesConfig, data_dir: Path, source: Path) -> int:
    """The contents that `copy_out` put into `source` are where the server looks for them; how many these are.

    What is known of the files the server finds in the messages that carry them. Raises `StoreError`.
    """
    blobs = blobs_of(config, data_dir)
    count = 0
    try:
        blobs.check()
        incoming = data_dir / FOLDER / "incoming"
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        given = Folder(source)
        for file, _ in given.all():
            partial = incoming / file
            with closing(given.open(file, 0, 0)) as stream, partial.open("wb") as copy:
                shutil.copyfileobj(stream, copy, _PIECE)
                copy.flush()
                os.fsync(copy.fileno())
            blobs.put(file, partial)
            count += 1
    except OSError as error:
        raise StoreError(f"{source}: {error}") from error
    return count
