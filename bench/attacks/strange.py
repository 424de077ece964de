"""Letters, numbers and forms that are allowed and unusual: what Unicode, MessagePack, zlib and HTTP have at their edges."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
import zlib

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, PREFIX, WINDOW, Attack, Foe, Ports, at_once, forever, ids, take_in
from bench.attacks.web import UPGRADE, get, requests, token_of

_ids = ids()
_MARKS = "\u0301\u0323"
"""Two marks whose order is not the one that Unicode wants: who sorts a run of them letter by letter is long at it."""


def marks(ports: Ports) -> None:
    """Bodies of one letter and as many marks above and below it as there is room for."""
    body = "a" + _MARKS * 15_000
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(_send(FOE, body))))


def hidden_marks(ports: Ports) -> None:
    """The same, of marks that mean something, with what nobody sees between them."""
    body = "\u304b" + ("\u3099\u302a" * 15 + "\ufe0f") * 600
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(_send(FOE, body))))


def long_letters(ports: Ports) -> None:
    """Bodies of letters each of which is eighteen when it is taken apart."""
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(_send(FOE, "\ufdfa" * 21_000))))


def _send(to: str, body: str) -> bytes:
    fields = {"op": "send", "id": next(_ids), "to": to, "body": body}
    return json.dumps(fields, ensure_ascii=False).encode()


def single_letters(ports: Ports) -> None:
    """Searches for characters that stand for themselves, and bodies of them."""
    queries = itertools.cycle(["\u7684" * 250, "\U0001f600" * 250, "\u7684 " * 120, "(a|b)*c.*[^d]{9}" * 15, "\ufdfa" * 250])
    numbers = itertools.count()

    def ask(foe: Foe) -> None:
        if not next(numbers) % 20:
            foe.send(foe.raw(_send(FOE, "\u7684\u4e00\U0001f600 " * 5_000)))
        foe.ask("search", query=next(queries))

    at_once(4, lambda: forever(ports.mqtt, ask))


def names(ports: Ports) -> None:
    """Groups that are renamed to marks, directions and characters of four bytes, and ids that are as long as they may be."""
    texts = itertools.cycle([_MARKS * 128, "\u202e\u2066" * 128, "\U0001f468\u200d" * 128, "\ufdfa" * 256])
    numbers = itertools.count()

    def ask(foe: Foe) -> None:
        number = f"{next(numbers):08}"
        foe.ask("group.rename", id="\U0001f468" * 56 + number, group=GROUP, name=next(texts))
        foe.ask("react", id="\u202e" * 56 + number, conv=GROUP, seq=1, emoji="\U0001f468\u200d" * 4)
        foe.ask("send", id="\u0301" * 56 + number, to="x" * 56 + number, body="", key="\u0301" * 64)

    forever(ports.mqtt, ask)


def path_in_a_name(ports: Ports) -> None:
    """Ops whose names look like what is said of wrong ones."""
    payload = json.dumps({"op": " - at `$.op" * 20_000, "id": "x"}).encode()
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(payload) * 4))


def extensions(ports: Ports) -> None:
    """MessagePack of types that it leaves to others, of times, and of what is said to be longer than it is."""
    head = b"\x84\xa2op\xa4send\xa2id\xa1x\xa2to\xa3bob\xa4body"
    bodies = itertools.cycle(
        [
            b"\xdc\x4e\x20" + b"\xd4\x07x" * 20_000,
            b"\xdc\x27\x10" + b"\xd6\xff\0\0\0\0" * 10_000,
            b"\xc9\0\0\xea\x60\x05" + b"x" * 60_000,
            b"\xdd\xff\xff\xff\xff" + b"\xc0" * 1_000,
            b"\xdf\xff\xff\xff\xff" + b"\xa0\xa0" * 1_000,
            b"\xc6\xff\xff\xff\xff",
            b"\xc7\x0c\xff" + b"\xff" * 12,
        ]
    )
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.raw(head + next(bodies)) for _ in range(8))))


def nested_bombs(ports: Ports) -> None:
    """zlib in zlib, zlib of a hundred thousand empty blocks, and one that is cut before it ends."""
    request = b'{"op":"send","to":"bob","body":"' + b"x" * 250_000 + b'"}'
    twice = zlib.compress(zlib.compress(request, 9), 9)
    empty = b"\x78\x01" + b"\0\0\0\xff\xff" * 48_000
    cut = zlib.compress(request, 0)[:240_000]
    payloads = itertools.cycle([twice, empty, cut])
    forever(ports.mqtt, lambda foe: foe.send(b"".join(foe.raw(next(payloads)) for _ in range(3))))


def edges(ports: Ports) -> None:
    """Pages from before the beginning, behind the end, and the other way round."""
    seqs = itertools.cycle([1, 2, 2**31, 2**53, 2**53 - 1])
    convs = itertools.cycle([GROUP, f"{FOE}:{FOE}", f"{FOE}:user7"])

    def ask(foe: Foe) -> None:
        conv = next(convs)
        foe.send(
            b"".join(
                foe.packet("history", conv=conv, before=next(seqs), after=next(seqs), limit=500)
                + foe.packet("history", conv=conv, before=next(seqs), limit=2**31)
                + foe.packet("history", conv=conv, after=next(seqs))
                + foe.packet("sync", after=next(seqs), limit=1)
                for _ in range(WINDOW // 4)
            )
        )

    forever(ports.mqtt, ask)


def entity_tags(ports: Ports) -> None:
    """Thousands of entity tags for a file that has another one, and parts of it if it is still that one."""
    token = token_of(ports)
    body = b"x" * 1_000_000
    head = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
        foe.sendall(f"POST /api/v1/files?name=x HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        name = json.loads(foe.recv(1 << 16).partition(b"\r\n\r\n")[2] or b"{}").get("id", "none")
    tags = ", ".join(f'W/"{number}"' for number in range(4_000))
    wanted = itertools.cycle(
        [
            ("If-None-Match: " + tags, "Range: bytes=0-0"),
            ('If-Range: "other"', "Range: bytes=-1"),
            ("Range: bytes=" + "9" * 30_000 + "-",),
            ("Range: bytes=1-0,0-" + ",-" * 10_000,),
        ]
    )
    requests(ports, 20, lambda: get(f"/api/v1/files/{name}", f"Authorization: Bearer {token}", *next(wanted)))


def last_event_ids(ports: Ports) -> None:
    """Event streams after what is no number, a huge one, or the first."""
    token = token_of(ports)
    numbers = itertools.cycle(["9" * 4_000, "9" * 18, "-1", "1", "0" * 30_000 + "1", "\u0664".encode().decode("latin-1")])

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                for _ in range(20):
                    foe.sendall(get("/api/v1/events", f"Authorization: Bearer {token}", f"Last-Event-ID: {next(numbers)}"))
                foe.recv(1 << 16)

    at_once(8, work)


def offers(ports: Ports) -> None:
    """WebSockets with thousands of extensions and subprotocols to choose from."""
    extension = ", ".join(["permessage-deflate; client_max_window_bits=8; server_no_context_takeover"] * 200)
    protocols = ", ".join(f"p{number}" for number in range(2_000))
    offer = f"Sec-WebSocket-Extensions: {extension}\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n"
    upgrade = UPGRADE[:-2] + offer.encode()

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.websocket), timeout=30) as foe:
                foe.sendall(upgrade + b"\xc2\x80\0\0\0\0" * 1_000)
                while foe.recv(1 << 16):
                    pass

    at_once(10, work)


def client_hellos(ports: Ports) -> None:
    """TLS whose first message is said to be of 16 MB, and comes in records of a few bytes."""
    record = b"\x16\x03\x01\0\x04"
    begin = record + b"\x01\xff\xff\xff" + (record + b"\x03\x03xx") * 2_000

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.mqtts), timeout=30) as foe:
                foe.sendall(begin)
                foe.settimeout(2)
                while True:
                    foe.sendall((record + b"abcd") * 200)
                    time.sleep(0.01)

    at_once(50, work)


def half_properties(ports: Ports) -> None:
    """MQTT 5 whose properties are said to be longer than the packet, in a packet of 250 KB, to be found out at its end."""
    body = wire.text(f"{PREFIX}/{FOE}/x/up") + b"\0\1" + b"\xff\xff\x7f" + b"\x26\0\1a\0\1b" * 35_000
    packet = b"\x32" + wire.remaining_length(len(body)) + body

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, listens=False, reads=False, version=wire.V5)
                foe.send(packet)
                foe.socket.recv(100)
                foe.socket.close()

    at_once(4, work)


def endless_upgrade(ports: Ports) -> None:
    """WebSocket upgrades a byte at a time, with requests behind them that no WebSocket has."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=take_in, args=(foe,), daemon=True).start()
                for number in range(len(UPGRADE)):
                    foe.sendall(UPGRADE[number : number + 1])
                while True:
                    foe.sendall(get("/api/v1/nothing") * 100)

    at_once(10, work)


STRANGE: dict[str, Attack] = {
    "30,000 marks on one letter": marks,
    "marks with what nobody sees": hidden_marks,
    "letters that are eighteen": long_letters,
    "searches of single characters": single_letters,
    "names of marks, ids of 64 characters": names,
    "ops that look like paths": path_in_a_name,
    "MessagePack extensions": extensions,
    "zlib in zlib": nested_bombs,
    "history beyond its ends": edges,
    "4,000 entity tags": entity_tags,
    "Last-Event-ID of no stream": last_event_ids,
    "WebSocket offers": offers,
    "TLS ClientHello of 16 MB": client_hellos,
    "properties beyond the packet": half_properties,
    "WebSocket upgrades byte by byte": endless_upgrade,
}
