"""What has been built up over a while, and one cheap thing that meets all of it: all that may be kept, or what is due at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from http.client import HTTPConnection, HTTPException

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, PREFIX, WINDOW, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.together import ACCOUNTS
from bench.attacks.web import token_of

_ids = ids()
_RETAINED = 10_000
"""As many as there may be."""


def _expires(seconds: int) -> bytes:
    """A Message Expiry Interval."""
    return b"\x02" + seconds.to_bytes(4, "big")


def _retain_all(ports: Ports, seconds: int) -> None:
    """As many retained messages as there may be, which end after so long."""

    def fill(name: str) -> None:
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, name, version=wire.V5)
            for number in range(_RETAINED // len(ACCOUNTS)):
                foe.send(foe.publish(f"plain/e/{name}/{number}", b"x" * 200, retain=True, properties=_expires(seconds)))
            time.sleep(2)

    names = iter(ACCOUNTS)
    at_once(len(ACCOUNTS), lambda: fill(next(names)))


def retained_beyond(ports: Ports) -> None:
    """Retained messages for which there is no room among 10,000 that end tomorrow."""
    _retain_all(ports, 86_400)
    forever(
        ports.mqtt,
        lambda foe: foe.send(b"".join(foe.publish(f"plain/n/{next(_ids)}", b"x", retain=True) for _ in range(WINDOW))),
        version=wire.V5,
    )


def retained_too_large(ports: Ports) -> None:
    """All that is retained, for clients of MQTT 5 that take packets of 100 bytes."""
    _retain_all(ports, 86_400)

    def look() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, f"small{next(_ids)}", listens=False, version=wire.V5, properties=b"\x27\0\0\0\x64")
                foe.send(foe.subscription(["plain/#"]))
                time.sleep(0.3)
                foe.socket.close()

    at_once(4, look)


def retained_over(ports: Ports) -> None:
    """The same for everybody, when the time of all of it is over, again and again."""
    while True:
        _retain_all(ports, 3)
        time.sleep(2)
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, f"late{next(_ids)}", listens=False, version=wire.V5)
            foe.send(foe.subscription(["plain/#"], 1))
            time.sleep(0.5)
            foe.socket.close()


def sessions_over(ports: Ports) -> None:
    """Sessions of twenty accounts with as many filters as there is room for, all of which end at the same moment."""

    def come(name: str, end: float) -> None:
        for number in itertools.count():
            if time.time() > end - 1:
                return
            kept = b"\x11" + int(end - time.time()).to_bytes(4, "big")
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, name, f"k{number}", listens=False, version=wire.V5, clean=False, properties=kept)
                foe.send(foe.subscription([f"plain/{next(_ids)}" for _ in range(900)], 1))
                time.sleep(0.2)
                foe.socket.close()

    while True:
        end = time.time() + 6
        coming = [threading.Thread(target=come, args=(name, end), daemon=True) for name in ACCOUNTS]
        for thread in coming:
            thread.start()
        for thread in coming:
            thread.join()
        time.sleep(max(0.0, end - time.time()))


def wills_due(ports: Ports) -> None:
    """Messages to a crowd as wills of 250 sessions, which are due at the same moment."""
    payload = json.dumps({"op": "send", "to": GROUP, "body": "all of you"}).encode()
    kept = b"\x05\x11\0\0\xff\xff"
    while True:
        end = time.time() + 8
        for number in range(250):
            delay = max(1, int(end - time.time())).to_bytes(4, "big")
            topic = wire.text(f"{PREFIX}/{FOE}/w{number}/up")
            will = b"\x05\x18" + delay + topic + len(payload).to_bytes(2, "big") + payload
            body = wire.text("MQTT") + b"\5\x8c\0\0" + kept + wire.text(f"w{number}") + will + wire.text(FOE)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.mqtt), timeout=30) as foe:
                foe.sendall(b"\x10" + wire.remaining_length(len(body)) + body)
                foe.recv(100)
        time.sleep(max(0.0, end - time.time()) + 1)


def files_taken_back(ports: Ports) -> None:
    """Files that hundreds of recalled messages have carried, and one that is there: who asks for them, and sends them on."""

    def work(name: str) -> None:
        token = {"Authorization": f"Bearer {token_of(ports, name)}"}
        site = HTTPConnection("127.0.0.1", ports.http, timeout=30)
        files = []
        for _ in range(10):
            site.request("POST", "/api/v1/files?name=x", b"x", token)
            files.append(json.loads(site.getresponse().read())["id"])
        foe = Foe(ports.mqtt, name)
        for number in range(300):
            foe.ask("send", id=next(_ids), to=f"had-{name}-{number}", body="x", files=files)
        foe.ask("send", id=next(_ids), to=f"zz-{name}", body="x", files=files)
        for number in range(300):
            foe.ask("recall", id=next(_ids), conv=":".join(sorted((name, f"had-{name}-{number}"))), seq=1)
        for number in itertools.count():
            site.request("GET", f"/api/v1/files/{files[number % 10]}", headers=token)
            site.getresponse().read()
            foe.ask("send", id=next(_ids), to=f"zz-{name}", body="x", files=files)

    def try_again(name: str) -> None:
        while True:
            with contextlib.suppress(OSError, HTTPException, ValueError, KeyError):
                work(name)

    names = iter(ACCOUNTS)
    at_once(len(ACCOUNTS), lambda: try_again(next(names)))


def forth_and_back(ports: Ports) -> None:
    """A device that has all of a long inbox, and none of it, and all of it, from as many connections as there may be."""

    def work(foe: Foe) -> None:
        foe.ask("hello", after=0, ack="app")
        foe.ask("ack", pos=5_000)

    at_once(15, lambda: forever(ports.mqtt, work))


EDGES: dict[str, Attack] = {
    "acks forth and back": forth_and_back,
    "retained messages beyond the most": retained_beyond,
    "retained messages that nobody takes": retained_too_large,
    "retained messages whose time is over": retained_over,
    "sessions that end at the same moment": sessions_over,
    "wills that are due at the same moment": wills_due,
    "files that were taken back": files_taken_back,
}
