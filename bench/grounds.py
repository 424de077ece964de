"""The servers that attacks are made on: what each needs in its configuration, and how those who are beside it log in there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from bench import attacks
from bench.attacks.doors import ADMIN, HOOKED, OPERATED, PROXIED, TOKENS
from bench.servers import Server

OPEN, ACCOUNTS, JWT, PROXY, HOOKS, OPERATOR = "open", "accounts", "jwt", "proxy", "hooks", "operator"
_KEYS = 20
"""In the set of those that tokens may be signed with."""
_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
"""A PROXY header of a proxy that speaks for itself."""
_WITH_ACCOUNTS = ("logins over HTTP", "guesses over HTTP", "guesses", "registrations")
"""Attacks on a server that has accounts, since passwords cost it something."""

Value = str | bool | int | list[str]


class Ground(NamedTuple):
    """One kind of server."""

    settings: Mapping[str, Value]
    passwords: Mapping[str, str]
    """Of those beside an attack; where there are none nobody is asked for one."""


def ground_of(attack: str) -> str:
    """On which an attack is made."""
    found = {**dict.fromkeys(_WITH_ACCOUNTS, ACCOUNTS), **dict.fromkeys(TOKENS, JWT), **dict.fromkeys(PROXIED, PROXY)}
    found |= {**dict.fromkeys(HOOKED, HOOKS), **dict.fromkeys(OPERATED, OPERATOR)}
    return found.get(attack, OPEN)


def grounds_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The attacks on each ground, in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(ground_of(name), []).append(name)
    return found


def make(ground: str, folder: Path, receiver: int) -> Ground:
    """What a server of this kind is told; files that it needs are in the folder. `receiver` is where webhooks go."""
    here = f"http://127.0.0.1:{receiver}"
    everybody = ("alice", "bob", attacks.FOE)
    if ground == ACCOUNTS:
        return Ground({"auth.registration": True}, dict.fromkeys(everybody, attacks.PASSWORD))
    if ground == JWT:
        return _tokens(folder / "keys.json", everybody)
    if ground == PROXY:
        return Ground({"mqtt.proxy_protocol": True}, {})
    if ground == HOOKS:
        receivers = {f"{name}.{key}": value for name in ("push", "hooks") for key, value in (("url", here), ("secret", "x"))}
        return Ground({**receivers, "webpush.contact": "mailto:a@b", "webpush.services": [here], "push.delay_s": 0}, {})
    return Ground({"auth.admin_token": ADMIN} if ground == OPERATOR else {}, {})


def _tokens(file: Path, users: Iterable[str]) -> Ground:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(_KEYS)]
    public = [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) for key in keys]
    file.write_text(json.dumps({"keys": public}))
    expires = int(time.time()) + 7_200
    passwords = {user: jwt.encode({"sub": user, "exp": expires}, keys[0], "ES256") for user in users}
    return Ground({"auth.mode": "jwt", "auth.jwt.key": str(file)}, passwords)


class _Proxied(Server):
    """A server that expects a proxy in front of it."""

    def login(self, user: str, password: str | None = None, *, clean: bool = True) -> bytes:
        """See `Broker`."""
        return _LOCAL + Server.login(self, user, password, clean=clean)


def reached(server: Server, ground: str) -> Server:
    """The server, as those beside an attack connect to it."""
    if ground != PROXY:
        return server
    return _Proxied(**{field.name: getattr(server, field.name) for field in fields(server)})
