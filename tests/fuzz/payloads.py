"""Fuzzes the payload codec: requests of every kind in JSON, MessagePack and zlib, with odd values and broken bytes.

Only `Unreadable` may be raised. What is accepted must be deliverable: its body is JSON for whoever reads it strictly,
has a MessagePack form, and the whole request can be written down.
"""

from __future__ import annotations

import json
import time
import tracemalloc
import zlib
from collections import Counter
from random import Random
from typing import Any, Final, NoReturn

import msgspec

from mqtt_im.protocol.codec import decode_request, encode_json, json_to_msgpack
from mqtt_im.protocol.faults import Unreadable
from mqtt_im.protocol.requests import Request
from tests.fuzz.connections import Found
from tests.fuzz.mutate import mutated

MAX_BODY: Final = 2_000
MAX_UNPACKED: Final = 20_000
_PEAK_BYTES: Final = 8_000_000
"""More memory than one payload of `MAX_UNPACKED` bytes can have a reason for."""
_RAW: Final = ("body", "result")

_REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {"op": "send", "id": "m1", "to": "bob", "body": "hello", "n": 1, "cts": 1_700_000_000_000},
    {
        "op": "send",
        "to": "#ops",
        "body": {"text": "x", "list": [1, 2.5, None, True]},
        "mentions": ["*"],
        "push": {"a": {"b": [1]}},
    },
    {"op": "send", "id": "m2", "to": "bob", "body": {"$bin": "AAEC"}, "ttl": 5, "key": "k", "reply_to": 3},
    {"op": "report", "id": "r", "conv": "alice:bob", "seq": 3, "state": "executed", "result": {"on": True}},
    {"op": "edit", "id": "e", "conv": "alice:bob", "seq": 3, "body": ["new"]},
    {"op": "recall", "id": "x", "conv": "#ops", "seq": 3},
    {"op": "react", "id": "y", "conv": "#ops", "seq": 3, "emoji": "\U0001f44d"},
    {"op": "hello", "id": "h", "after": 4, "ack": "app", "codec": "msgpack", "batch": True, "zip": True, "window": 10, "n": 2},
    {"op": "ack", "pos": 12},
    {"op": "sync", "after": 0, "limit": 10},
    {"op": "history", "conv": "alice:bob", "before": 9, "after": 1, "limit": 5},
    {"op": "convs", "limit": 3, "after": "alice:bob"},
    {"op": "read", "conv": "alice:bob", "seq": 9},
    {"op": "typing", "to": "bob", "on": True},
    {"op": "search", "query": "words", "conv": "#ops", "before": 1_700_000_000_000},
    {"op": "mute", "id": "q", "conv": "#ops", "until": 0},
    {"op": "settings", "id": "s", "read_receipts": False},
    {"op": "group.create", "id": "g", "group": "#ops", "name": "Ops", "members": ["bob", "carol"]},
    {"op": "group.role", "id": "g2", "group": "#ops", "user": "bob", "role": "admin"},
    {"op": "group.rename", "id": "g3", "group": "#ops", "name": "n\u00e4me"},
    {"op": "block", "id": "b", "user": "bob"},
    {"op": "devices"},
    {"op": "device.forget", "id": "f", "device": "phone"},
)

_ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308, "", "x" * 65, "#", "a:b", "\0",
    "\ufeff", "\U0001f600" * 20, [], {}, [[]], {"": ""}, {"$bin": "AA=="}, {"$bin": "!"}, {"$bin": 1},
    {"$bin": "", "x": 1}, ["*"] * 101,
)  # fmt: skip

# JSON that no encoder writes.
_ODD_JSON: Final = (
    b"1e999", b"-1e999", b"NaN", b"Infinity", b'"\\ud800"', b'"\\ude00\\ud83d"', b'"\\u0000"', b"9" * 400,
    b"1." + b"0" * 300, b"[" * 200 + b"]" * 200, b'{"a":' * 150 + b"1" + b"}" * 150, b"-", b"01", b"1e", b'"\xff"',
    b'"\xed\xa0\x80"', b'"\n"', b"tru", b'{"a":1,"a":2}', b'{"$bin":"AA==","$bin":1}', b"\xef\xbb\xbf1", b"1 ",
    b"/**/1", b"'x'", b"[1,]", b'"\\x"', b"0x10", b"1_000",
)  # fmt: skip

# MessagePack that JSON has no words for, or that promises more than it holds.
_ODD_MSGPACK: Final = (
    b"\xc1", b"\xd4\x05x", b"\xd6\xff\0\0\0\1", b"\xc7\x0c\xff" + bytes(12), b"\xca\x7f\xc0\0\0",
    b"\xcb\x7f\xf8" + bytes(6), b"\xcb\xff\xf0" + bytes(6), b"\x81\xc0\x01", b"\x81\x01\x02", b"\x81\xc4\x01x\x01",
    b"\x81\xc3\x01", b"\x81\x90\x01", b"\x82\xa1a\x01\xa1a\x02", b"\x82\xa11\x01\x01\x02", b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 300 + b"\xc0", b"\x81\xa0" * 300 + b"\xc0", b"\xa1\xff",
    b"\xa3\xed\xa0\x80", b"\xc4\x04\0\1\2\3", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7),
    b"\x81\xcb\x7f\xf0" + bytes(6) + b"\1", b"\xc6\xff\xff\xff\xff", b"\x81\xa4$bin\xa1!",
)  # fmt: skip
_MARK: Final = "\u2603fuzz\u2603"


def run(seed: int, seconds: float, cases: int | None = None) -> str:
    """Fuzz for so long (or so many cases); returns one line about it. Raises `Found`."""
    random, started, number = Random(seed), time.monotonic(), 0
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    while number < cases if cases is not None else time.monotonic() - started < seconds:
        payload = _payload(random)
        watched = number % 200 == 0
        if watched:
            tracemalloc.start()
        begun = time.process_time()
        outcomes[check(payload)] += 1
        slowest = max(slowest, 0.0 if watched else time.process_time() - begun)
        if watched:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if peak > _PEAK_BYTES:
                raise Found(f"{peak} bytes of memory for {payload!r}")
        number += 1
    told = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    return f"{number} payloads ({told}), the slowest took {slowest * 1000:.1f} ms"


def check(payload: bytes) -> str:
    """Decode one payload; the outcome in a word. Raises `Found`."""
    try:
        request = decode_request(payload, MAX_BODY, MAX_UNPACKED)
    except Unreadable as refusal:
        try:
            encode_json({"id": refusal.id, "code": refusal.code, "message": refusal.message})
        except Exception as error:
            raise Found(f"the refusal of {payload!r} cannot be told: {error!r}") from error
        return str(refusal.code)
    except Exception as error:
        raise Found(f"{type(error).__name__} {error} from {payload!r}") from error
    try:
        deliverable(request)
    except Exception as error:
        raise Found(f"accepted, but not deliverable ({type(error).__name__} {error}): {payload!r}") from error
    return "accepted"


def deliverable(request: Request) -> None:
    """Raise where something of the request could not be stored, or given to a device of either kind."""
    fields = {name: getattr(request, name) for name in request.__struct_fields__ if name not in _RAW}
    msgspec.msgpack.decode(msgspec.msgpack.encode(fields))
    msgspec.json.decode(msgspec.json.encode(fields))
    for name in _RAW:
        raw = bytes(getattr(request, name, b""))
        if raw:
            item = encode_json({"op": "msg", "pos": 1, "body": msgspec.Raw(raw)})
            assert msgspec.json.decode(item)["op"] == "msg"
            json.loads(item.decode(), parse_constant=_refuse)
            msgspec.msgpack.decode(json_to_msgpack(raw))
            msgspec.msgpack.decode(json_to_msgpack(item))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _payload(random: Random) -> bytes:
    request = dict(random.choice(_REQUESTS))
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        _change(random, request)
    payload = _encoded(random, request)
    if random.random() < 0.4:
        payload = mutated(random, payload, [_encoded(random, random.choice(_REQUESTS))])
    if random.random() < 0.15:
        payload = zlib.compress(payload + bytes(random.choice((0, 0, 0, 50_000))), random.choice((0, 1, 9)))
        if random.random() < 0.5:
            payload = mutated(random, payload, [])
    return payload


def _change(random: Random, request: dict[str, Any]) -> None:
    """Do something odd to one field, or to one that does not belong there."""
    field = random.choice([*request, "body", "n", "cts", "push", "extra"])
    match random.randrange(4):
        case 0:
            request.pop(field, None)
        case 1:
            request[field] = _MARK
        case 2:
            request[field] = _nested(random, random.choice(_ODD))
        case _:
            request[field] = random.choice(_ODD)


def _nested(random: Random, value: Any) -> Any:
    for _ in range(random.choice((1, 3, 50, 98, 101, 102))):
        value = [value] if random.random() < 0.5 else {random.choice(("a", "$bin", "")): value}
    return value


def _encoded(random: Random, request: dict[str, Any]) -> bytes:
    """As JSON or MessagePack, with `_MARK` replaced by something that encoders do not make."""
    if random.random() < 0.5:
        text = json.dumps(request, ensure_ascii=random.random() < 0.5, separators=random.choice(((",", ":"), (", ", ": "))))
        return text.encode().replace(json.dumps(_MARK, ensure_ascii=False).encode(), random.choice(_ODD_JSON))
    marked = msgspec.msgpack.encode(_MARK)
    return msgspec.msgpack.encode(request).replace(marked, random.choice(_ODD_MSGPACK))
