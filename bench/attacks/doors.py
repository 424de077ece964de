"""What stands before and behind the server: tokens, PROXY headers, receivers of webhooks, and the operator's own pages.

Each needs a server that has it (`bench.grounds`).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, MEMBERS, Attack, Foe, Ports, at_once, ids
from bench.attacks.together import ACCOUNTS, all_of_them
from bench.attacks.web import get, requests, token_of

_ids = ids()
ADMIN = "token-of-the-operator"
_PROXY = b"\r\n\r\n\0\r\nQUIT\n\x21"
"""The signature of a PROXY header, version 2, and that it speaks for somebody."""


def _open(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def _part(content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _token(header: object = None, **claims: object) -> str:
    """One of the right shape, that nobody has signed, of each key that there is."""
    known = {"sub": FOE, "exp": int(time.time()) + 3_600, "jti": next(_ids), **claims}
    return f"{_part(header or {'alg': 'ES256', 'typ': 'JWT'})}.{_part(known)}.{_part(os.urandom(48).hex()[:64])}"


def _come(ports: Ports, token: Callable[[], str]) -> None:
    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.mqtt) as foe:
                foe.sendall(wire.connect("x", FOE, token()))
                foe.recv(10)

    at_once(8, work)


def unsigned(ports: Ports) -> None:
    """Tokens that nobody has signed, and that do not say with which key."""
    _come(ports, _token)


def large_tokens(ports: Ports) -> None:
    """The same, as long as one may be."""
    filler = "x" * 11_000
    _come(ports, lambda: _token(filler=filler))


def odd_headers(ports: Ports) -> None:
    """Tokens whose header is deep, long, or names a key of which nobody knows."""
    headers = itertools.cycle(
        ["[" * 9_000, {"alg": "ES256", "kid": "k" * 9_000}, {"alg": "none"}, {"alg": "ES256", "crit": ["x"] * 2_000}]
    )
    _come(ports, lambda: _token(next(headers)))


def tokens_over_http(ports: Ports) -> None:
    requests(ports, 50, lambda: get("/api/v1/events", f"Authorization: Bearer {_token()}"))


def half_headers(ports: Ports) -> None:
    """PROXY headers that come but for their last byte, on thousands of connections."""
    there: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            foe = _open(ports.mqtt)
            foe.sendall(_PROXY + b"\x11\x10\0" + b"\0" * 4_095)
            there.append(foe)
        if len(there) > 3_000:
            there.pop(0).close()


def dripping_headers(ports: Ports) -> None:
    """PROXY headers a byte at a time."""
    header = _PROXY + b"\x11\x10\0" + b"\x7f\0\0\1" * 1_024

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.mqtt) as foe:
                foe.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for number in range(len(header)):
                    foe.sendall(header[number : number + 1])

    at_once(20, work)


def wrong_headers(ports: Ports) -> None:
    """PROXY headers of version 1, of 64 KB, of families that are none, and with addresses that are cut."""
    headers = itertools.cycle(
        [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            _PROXY + b"\x11\xff\xff" + b"\0" * 65_535,
            _PROXY + b"\xf1\0\4abcd",
            _PROXY + b"\x11\0\1a",
            _PROXY + b"\x21\0\x24" + b"\0" * 36,
        ]
    )

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.mqtt) as foe:
                foe.sendall(next(headers) + wire.connect("x", FOE))
                foe.recv(10)

    at_once(8, work)


def many_addresses(ports: Ports) -> None:
    """Clients from another address each, as a proxy says, who log in as somebody and go."""
    users = itertools.cycle(ACCOUNTS)

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.mqtt) as foe:
                foe.sendall(_PROXY + b"\x21\0\x24" + os.urandom(36) + wire.connect(next(_ids), next(users)))
                foe.recv(10)

    at_once(8, work)


def _receive(ports: Ports, answer: Callable[[socket.socket], None]) -> None:
    """Who connects to the receiver is answered so."""

    def serve(taken: socket.socket) -> None:
        with contextlib.suppress(OSError), taken:
            answer(taken)

    def accept() -> None:
        listening = socket.create_server(("127.0.0.1", ports.receiver), backlog=1_000)
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _wake_everybody(ports: Ports) -> None:
    """Messages to ever new users, who are away and are to be woken."""
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=f"asleep{next(_ids)}", body="x" * 1_000))


def _hangs(taken: socket.socket) -> None:
    while taken.recv(1 << 16):
        pass


def hanging(ports: Ports) -> None:
    """A receiver of webhooks that takes all, and says nothing."""
    _receive(ports, _hangs)
    _wake_everybody(ports)


def dripping(ports: Ports) -> None:
    """One that answers a byte at a time, and never ends its head."""

    def drip(taken: socket.socket) -> None:
        taken.recv(1 << 16)
        taken.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            taken.sendall(b"y")
            time.sleep(0.01)

    _receive(ports, drip)
    _wake_everybody(ports)


def redirecting(ports: Ports) -> None:
    """One that sends everybody to itself."""

    def redirect(taken: socket.socket) -> None:
        while taken.recv(1 << 16):
            taken.sendall(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1/again\r\nContent-Length: 0\r\n\r\n")

    _receive(ports, redirect)
    _wake_everybody(ports)


def talking(ports: Ports) -> None:
    """One that answers with gigabytes."""

    def talk(taken: socket.socket) -> None:
        taken.recv(1 << 16)
        taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            taken.sendall(b"x" * (1 << 20))

    _receive(ports, talk)
    _wake_everybody(ports)


def waking_a_crowd(ports: Ports) -> None:
    """A receiver that takes all, and messages to a group of 5,000 who are all to be woken."""

    def take(taken: socket.socket) -> None:
        while taken.recv(1 << 20):
            taken.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    _receive(ports, take)
    with contextlib.suppress(OSError):
        Foe(ports.mqtt).ask("group.create", id=next(_ids), group=GROUP, members=MEMBERS[:4_998])
        time.sleep(1)
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="wake up"))


def hanging_services(ports: Ports) -> None:
    """Browsers of twenty users whose push service says nothing, and more that are subscribed all the time."""
    _receive(ports, _hangs)
    key = "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM"

    def subscribe(user: str) -> None:
        token = token_of(ports, user)
        while True:
            with contextlib.suppress(OSError, HTTPException):
                site = HTTPConnection("127.0.0.1", ports.http, timeout=30)
                for number in range(1_000):
                    device = f"b{number % 20}"
                    endpoint = f"http://127.0.0.1:{ports.receiver}/{user}/{next(_ids)}"
                    keys = {"p256dh": key, "auth": "BTBZMqHH6r4Tts7J_aSIgg"}
                    fields = json.dumps({"device": device, "subscription": {"endpoint": endpoint, "keys": keys}})
                    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                    site.request("POST", "/api/v1/push.subscribe", fields, head)
                    site.getresponse().read()
                site.close()

    for user in MEMBERS[2_200:2_220]:
        with contextlib.suppress(OSError):
            for number in range(20):
                Foe(ports.mqtt, user=user, device=f"b{number}").socket.close()
        threading.Thread(target=subscribe, args=(user,), daemon=True).start()
    asleep = itertools.cycle(MEMBERS[2_200:2_220])
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=next(asleep), body="x"))


def _operator(method: str, path: str, body: str = "") -> bytes:
    head = [f"{method} /api/v1/admin/{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {ADMIN}"]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join((*head, "", body)).encode()


def lists(ports: Ports) -> None:
    """What the operator may look at: users, connections, a large group, the story of a message to it."""
    group = f"%23{GROUP[1:]}"
    users = ("users", "users?limit=500", *(f"users/{FOE}{rest}" for rest in ("", "/devices", "/tokens")))
    paths = itertools.cycle((*users, "connections", f"conversations/{group}", f"messages/{group}/1", "stats"))
    requests(ports, 10, lambda: _operator("GET", next(paths)))


def stories(ports: Ports) -> None:
    """The operator looks at messages to a crowd whose inboxes are not alike, while more is said to it."""
    with contextlib.suppress(OSError):
        foe = Foe(ports.mqtt)
        for number in range(60):
            foe.ask("send", id=next(_ids), to=MEMBERS[number], body="one more")
    paths = itertools.cycle(f"messages/%23{GROUP[1:]}/{seq}" for seq in range(1, 9))
    threading.Thread(target=requests, args=(ports, 2, lambda: _operator("GET", next(paths))), daemon=True).start()
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="all of you"))


def dashboards(ports: Ports) -> None:
    """Two hundred dashboards, and some that are opened and closed."""
    request = _operator("GET", "stats/stream")

    def watch() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.http) as foe:
                foe.sendall(request)
                while foe.recv(1 << 16):
                    pass

    for _ in range(200):
        threading.Thread(target=watch, daemon=True).start()
    requests(ports, 4, request)


def upkeep(ports: Ports) -> None:
    """Backups and compaction, one after the other, while a thousand clients come and go."""
    users = itertools.cycle(MEMBERS[3_000:4_000])

    def storm() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, user=next(users), device="storm", reads=False)
                foe.ask("sync", after=0)
                foe.socket.recv(1_000)
                foe.socket.close()

    for _ in range(8):
        threading.Thread(target=storm, daemon=True).start()
    works = itertools.cycle(("backup", "compact"))

    def work() -> bytes:
        name = next(works)
        return _operator("POST", f"maintenance/{name}", json.dumps({"name": next(_ids)}) if name == "backup" else "{}")

    requests(ports, 1, work)


def erasing(ports: Ports) -> None:
    """Users who have made large groups, and are erased with all that they have."""

    def work() -> None:
        while True:
            user = f"gone{next(_ids)}"
            with contextlib.suppress(OSError), _open(ports.http) as site:
                foe = Foe(ports.mqtt, user=user)
                foe.ask("group.create", id="g", members=MEMBERS[:1_000])
                for number in range(50):
                    foe.ask("send", id=f"m{number}", to=f"gone-to{number}", body="x" * 1_000)
                time.sleep(0.5)
                site.sendall(_operator("DELETE", f"users/{user}?erase=true"))
                site.recv(1 << 16)

    at_once(4, work)


TOKENS: dict[str, Attack] = {
    "tokens that nobody has signed": unsigned,
    "tokens of 16 KB": large_tokens,
    "tokens with odd headers": odd_headers,
    "unsigned tokens over HTTP": tokens_over_http,
}
PROXIED: dict[str, Attack] = {
    "PROXY headers that never end": half_headers,
    "PROXY headers byte by byte": dripping_headers,
    "PROXY headers that are wrong": wrong_headers,
    "clients of as many addresses": many_addresses,
}
HOOKED: dict[str, Attack] = {
    "a receiver that hangs": hanging,
    "a receiver that drips": dripping,
    "a receiver that redirects": redirecting,
    "a receiver that never stops": talking,
    "a crowd that is to be woken": waking_a_crowd,
    "push services that hang": hanging_services,
}
OPERATED: dict[str, Attack] = {
    "lists for the operator": lists,
    "stories of messages to a crowd": stories,
    "200 dashboards": dashboards,
    "backup and compaction in a storm": upkeep,
    "users erased with their groups": erasing,
}
