"""What loses its content with a recall or an edit, in whichever store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mqtt_im.core.records import AnyRecord, Edited, Message, Recalled
from mqtt_im.core.rules.files import files_of
from mqtt_im.store.interface import State
from mqtt_im.store.uploads import Uploads


def scrubbed(
    state: State, act: Recalled | Edited, read: Callable[[int], AnyRecord | None], uploads: Uploads
) -> Iterator[tuple[int, Message | Edited]]:
    """The log rows that `act` leaves without content, with their records as `read` finds them; their files are released.

    An edit takes the place of the one before it, so that a recall has little to do however many there were.
    """
    conv = state.conv_for(act.conv)
    amended = state.amended(conv, act.seq)
    lsns = [] if amended is None else [amended.edited]
    if type(act) is Recalled:
        lsns.append(state.message_lsn(conv, act.seq) or 0)
    for lsn in lsns:
        record = read(lsn) if lsn else None
        if isinstance(record, Message | Edited) and record.body is not None:
            if isinstance(record, Message):
                uploads.released(files_of(record))
            yield lsn, record
