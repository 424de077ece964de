"""What connected devices are to learn of what a job has brought about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqtt_im.core.records import MESSAGES, Act, Cursors, DeviceChange, ReadMark
from mqtt_im.store.commits import Receipt

from .job import Job

if TYPE_CHECKING:
    from mqtt_im.store.interface import Engine


def tell(engine: Engine, job: Job) -> None:
    """Fill in what connected devices are to learn of a job's records: entries, and the receipts that follow from them."""
    for commit in job.commits or ():
        record = commit.record
        if isinstance(record, Act):
            if commit.to:
                if isinstance(record, MESSAGES):
                    commit.entry = engine.fresh_entry(record)
                else:
                    commit.entry = engine.entry(record)
        elif isinstance(record, Cursors):
            for user, _, _, delivered in record.moves:
                _delivered(engine, job, user, delivered)
        elif isinstance(record, DeviceChange):
            _delivered(engine, job, record.user, record.delivered or ())
        elif isinstance(record, ReadMark):
            conv = engine.state.conv_for(record.conv)
            reader = engine.state.user(record.user)
            shown = engine.connected(conv) if reader.read_receipts else [record.user]
            to = [name for name in shown if name not in reader.blocks]
            implied = record.seq if record.seq > conv.members[record.user].delivered else 0  # what was read was delivered
            _add(job, Receipt(record.conv, record.user, implied, record.seq, to))


def _delivered(engine: Engine, job: Job, user: str, pairs: Any) -> None:
    for index in range(0, len(pairs), 2):
        conv = engine.state.conv_for(pairs[index])
        blocks = engine.state.user(user).blocks
        to = [name for name in engine.connected(conv) if name != user and name not in blocks]
        if to:
            _add(job, Receipt(conv.name, user, pairs[index + 1], 0, to))


def _add(job: Job, receipt: Receipt) -> None:
    if job.receipts is None:
        job.receipts = []
    job.receipts.append(receipt)
