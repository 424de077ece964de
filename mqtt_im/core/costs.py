"""What requests cost, in units of a small `send` between two users: that is what `limits.requests_per_second` counts.

The weights follow what was measured (`python -m bench hostile`): a small `send` takes some 60 µs of the server altogether, a
recipient 3 µs more, an item of a page 6 µs. A request is charged when it comes in, as far as it can be told; what is only known
afterwards, how many it reached and how long a page was, is charged, or given back, then.
"""

from __future__ import annotations

from typing import Any, Final

from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.weight import parts_at_most

BODY_BYTES: Final = 8192
"""Bytes of a body, or of a page, for one unit: they are written, kept and sent."""
PARTS: Final = 250
"""Lists and maps of a body for one unit."""
_SMALL: Final = 1024
"""Bytes of a body that costs nothing beside its request: it is what the unit is measured by."""
RECIPIENTS: Final = 20
"""Recipients of a message or an event for one unit."""
_SENT_BYTES: Final = 64 * 1024
"""Bytes that are copied to those who are connected for one unit …"""
_PACKET_BYTES: Final = 8 * 1024
"""… as which each packet counts beside its own: it is made, written, and acknowledged."""
BEGINNING: Final = 2.0
"""Units of a new conversation, beside its first message: users, members, and their places in all indexes."""
LOOKS: Final = 200
"""Places of a tree of topics or filters that are looked at for one unit."""
_FEW_LOOKS: Final = 20
KEPT: Final = 4
"""Kept sessions that a plain message is written for, for one unit."""
ITEMS: Final = 10
"""Entries of a page for one unit."""
SEARCH: Final = 10.0
"""Units of a search, beside its page and the time that it takes."""
FILE: Final = 5.0
"""Units of a file that is uploaded or read, beside its bytes."""
_FILE_BYTES: Final = 256 * 1024
"""Bytes of a file for one unit: they are written and hashed."""
_SECONDS: Final = 0.0002
"""Of a thread's time, where that is what was measured, for one unit."""
_SLOW: Final = 4
"""So many times may a page take what its units say, and costs no more."""
NOTICED_S: Final = 0.001
"""Less of the ledger's thread's time is not looked at."""
_READ_BYTES: Final = 1024 * 1024
"""Bytes of a file that is read for one unit: a millisecond of the loop and a thread."""
LOGIN: Final = 3.0
"""Units of a connection that comes and goes."""
_PAGES: Final = (rq.Sync, rq.History, rq.Convs, rq.GroupInfo)
_NAMING: Final = (rq.GroupCreate, rq.GroupAdd, rq.GroupRemove)


def at_the_door(request: rq.Request, page: int) -> float:
    """The units of a request that was just decoded; `page` is the most entries of a page."""
    kind = type(request)
    if kind is rq.Send or kind is rq.Edit or kind is rq.Report:
        body = bytes(request.result if kind is rq.Report else request.body)  # type: ignore[attr-defined]
        return 1 + _of_body(body) if len(body) > _SMALL else 1
    if isinstance(request, _NAMING):
        return 1 + len(request.members) / ITEMS
    if isinstance(request, rq.Search):
        return SEARCH
    if isinstance(request, _PAGES):
        return 1 + min(request.limit or page, page) / ITEMS / 2
    if kind is rq.Hello or kind is rq.Devices:
        return 2
    return 1


def _of_body(body: bytes) -> float:
    """Its bytes, and the lists and maps in it: those are made, and made again for each MessagePack device."""
    return len(body) / BODY_BYTES + parts_at_most(body) / PARTS


def of_nonsense(size: int) -> float:
    """The units of a payload of so many bytes that was no request, which costs most when it is found out at its end."""
    return size / BODY_BYTES * 4


def of_payload(size: int, seconds: float, understood: bool) -> float:
    """The units of a payload of so many bytes, unpacked, that a thread has taken so long to read, beside its request's own.

    Fields that nobody knows are read too. What of it is the body is counted once more, with the request.
    """
    units = of_nonsense(size) if not understood else size / BODY_BYTES if size > BODY_BYTES else 0.0
    return units + of_more_time(seconds, units + 1)


def of_page(result: Any, seconds: float = 0.0) -> float:
    """The units of a page as it turned out, and of what it took a thread beyond what such a page takes on a slow machine."""
    units = 1.0
    if isinstance(result, dict):
        entries = result.get("items") or result.get("convs") or result.get("members") or ()
        size = sum(len(bytes(entry)) for entry in entries if not isinstance(entry, dict))
        units += len(entries) / ITEMS + size / BODY_BYTES
    return units + of_more_time(seconds, units)


def of_time(seconds: float) -> float:
    """The units of what took a thread so long, such as a search."""
    return seconds / _SECONDS


def of_more_time(seconds: float, units: float) -> float:
    """The units of what took a thread so long, beyond what that many units take on a slow machine."""
    return max(0.0, of_time(seconds) - _SLOW * units)


def of_audience(count: int) -> float:
    """The units of telling so many users, beside the request's own."""
    return max(0, count - 2) / RECIPIENTS


def of_copies(count: int, size: int) -> float:
    """The units of sending so many connected users an item of so many bytes, beside telling them."""
    return count * (_PACKET_BYTES + size) / _SENT_BYTES


def of_file(size: int) -> float:
    """The units of an uploaded file of so many bytes."""
    return FILE + of_coming(size)


def of_coming(size: int) -> float:
    """The units of so many bytes of an upload that did not say before how many there are."""
    return size / _FILE_BYTES


def of_reading(size: int) -> float:
    """The units of so many bytes of a file that is read, beside `FILE`."""
    return size / _READ_BYTES


def of_plain(filters: int, looked: int, kept: int, size: int) -> float:
    """The units of a plain message of so many bytes that so many filters have matched, beside the packet's own.

    So many places of a tree were looked at for it, and so many sessions keep it: for each a row is written, and taken away again.
    """
    return of_audience(filters) + of_looks(looked) + kept / KEPT + (1 + kept) * size / BODY_BYTES


def of_looks(count: int) -> float:
    """The units of so many places of a tree that were looked at, but for a few."""
    return max(0, count - _FEW_LOOKS) / LOOKS


def of_subscriptions(filters: int, presences: int, kept: int) -> float:
    """The units of a SUBSCRIBE or UNSUBSCRIBE; `presences` of its filters ask who may see whom, `kept` are in the session."""
    return 1 + filters / 4 + presences * 2 + kept / RECIPIENTS
