"""The messages that carry files, from the log, in which they stand whatever else was lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mqtt_im.core.records import Message
from mqtt_im.store.sqlite.follow import LogReader
from mqtt_im.store.sqlite.tables.files import LOG_FILE


def carrying(data_dir: Path, unchanging: bool = False) -> Iterator[Message]:
    """The messages that carry files now, in the order of the log; `unchanging` as in `LogReader`."""
    if not (data_dir / LOG_FILE).exists():
        return
    with closing(LogReader(data_dir, unchanging)) as reader:
        last = 0
        while rows := reader.after(last, 1000):
            last = rows[-1][0]
            for _, record in rows:
                if isinstance(record, Message) and record.extra is not None and "files" in record.extra:
                    yield record
