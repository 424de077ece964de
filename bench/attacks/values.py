"""What is small, or short, and takes long to read: numbers, packed payloads, maps in maps, letters that are cut in half."""

from __future__ import annotations

import itertools
import threading
import zlib
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

from bench.attacks import wire
from bench.attacks.foe import FOE, WINDOW, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.web import requests, token_of

_ids = ids()
_HARD = b"1e308"
"""A number that msgspec takes 13 µs for."""
_LARGE = 250_000


def _send(body: bytes) -> bytes:
    return b'{"op":"send","id":"%b","to":"%b","body":%b}' % (next(_ids).encode(), FOE.encode(), body)


def hard_numbers(ports: Ports) -> None:
    """Bodies of the largest numbers that there are, for a device that gets them in MessagePack, and searches for them."""
    body = b"[" + b",".join([_HARD] * 10_900) + b"]"

    def listen() -> None:
        def ask(foe: Foe) -> None:
            foe.ask("hello", codec="msgpack")
            foe.ask("search", query="1e308")

        forever(ports.mqtt, ask)

    def write() -> None:
        forever(ports.mqtt, lambda foe: foe.send(foe.raw(_send(body))), listens=False)

    threading.Thread(target=listen, daemon=True).start()
    write()


def hard_numbers_beside(ports: Ports) -> None:
    """The same beside a field that is wrong, in an id, in a `push`, and over HTTP."""
    many = b"[" + b",".join([_HARD] * (_LARGE // 6)) + b"]"
    payloads = itertools.cycle(
        [
            b'{"op":"ack","pos":"x","zz":%b}' % many,
            b'{"op":"send","to":"bob","body":1,"push":{"a":%b}}' % many,
            b'{"op":"ack","id":%b,"pos":1}' % many,
            b'{"op":"ack","pos":1.0,"zz":%b}' % many,
        ]
    )
    head = (
        f"POST /api/v1/ack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(ports)}\r\nContent-Type: application/json\r\n"
    )
    body = b'{"id":%b}' % many
    asked = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def over_http() -> None:
        requests(ports, 2, asked)

    def over_mqtt() -> None:
        forever(ports.mqtt, lambda foe: foe.send(foe.raw(next(payloads))), listens=False)

    threading.Thread(target=over_http, daemon=True).start()
    over_mqtt()


def hard_logins(ports: Ports) -> None:
    """Logins of 8 KB whose fields are all wrong, by who is nobody yet."""
    body = b'{"user":1,"x":[' + b",".join([_HARD] * 1_350) + b"]}"

    def work() -> None:
        while True:
            with suppress(OSError, HTTPException):
                site = HTTPConnection("127.0.0.1", ports.http, timeout=30)
                while True:
                    site.request("POST", "/api/v1/login", body, {"Content-Type": "application/json"})
                    site.getresponse().read()

    at_once(8, work)


_PACKED = tuple(
    zlib.compress(payload, 9)
    for payload in (
        b'{"op":"send","id":"x","to":5,"zz":[[]' + b",[]" * (_LARGE // 3) + b"]}",
        b'{"op":"ack","zz":"' + b"\\ud83d\\ude00" * (_LARGE // 12) + b'","pos":1',
        b"\x83\xa2op\xa3ack\xa3pos\xa1x\xa2zz\xdd\0\3\xc0\0" + b"\x90" * 0x3C000,
        b'{"op":"send","id":"x","to":"bob","body":[' + b",".join([b"{}"] * 9_000) + b"]}",
    )
)


def packed_nonsense(ports: Ports) -> None:
    """Payloads of a few hundred bytes that are 250 KB, and wrong, when they are unpacked."""
    payloads = itertools.cycle(_PACKED)
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.raw(next(payloads)) for _ in range(WINDOW))), listens=False)


def packed_and_late(ports: Ports) -> None:
    """The same by fifteen clients of MQTT 5 that send far more than they may, so that most of it is refused for a while."""
    payloads = itertools.cycle(_PACKED)

    def ask(foe: Foe) -> None:
        foe.send(b"".join(foe.raw(next(payloads)) for _ in range(WINDOW * 8)))

    at_once(15, lambda: forever(ports.mqtt, ask, version=wire.V5, listens=False))


def packed_wills(ports: Ports) -> None:
    """The same as wills, of devices that die at once."""
    payloads = itertools.cycle(_PACKED)

    def work() -> None:
        while True:
            with suppress(OSError):
                device = f"w{next(_ids)}"
                will = (f"im/v1/{FOE}/{device}/up", next(payloads))
                Foe(ports.mqtt, device=device, listens=False, reads=False, will=will).socket.close()

    at_once(4, work)


def maps_in_maps(ports: Ports) -> None:
    """MessagePack of maps in each other, around a list of 59,000 that is not written as it would be."""
    head = b"\x84\xa2op\xa4send\xa2id\xa1x\xa2to\xa3bob\xa4body"
    long = b"\xdc" + (58_000).to_bytes(2, "big") + b"\xc0" * 57_998 + b"\xd0\1\xd0\1"
    wide = b"\xdc" + (9_990).to_bytes(2, "big") + b"\x81\1\xd0\1" * 9_990
    bodies = itertools.cycle([b"\x81\xa0" * 97 + long, b"\x81\xa0" * 400 + long, b"\x91" * 90 + wide])
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.raw(head + next(bodies)) for _ in range(8))), listens=False)


def half_letters(ports: Ports) -> None:
    """250 KB of escapes, of which the last is half a character, and 250 KB of texts that are no UTF-8 at their ends."""
    halves = b'{"op":"ack","zz":"' + b"\\ud83d\\ude00" * (_LARGE // 12) + b'\\ud83d"}'
    ends = b'{"op":"ack","zz":["\xc3\xa4"' + b",[]" * (_LARGE // 3) + b',"\xff"]}'
    payloads = itertools.cycle([halves, ends])
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(next(payloads))), listens=False)


VALUES: dict[str, Attack] = {
    "bodies of 1e308": hard_numbers,
    "1e308 beside what is wrong": hard_numbers_beside,
    "HTTP logins of 1e308": hard_logins,
    "packed nonsense": packed_nonsense,
    "packed nonsense, far beyond the rate": packed_and_late,
    "wills of packed nonsense": packed_wills,
    "MessagePack maps in maps": maps_in_maps,
    "letters that are cut in half": half_letters,
}
