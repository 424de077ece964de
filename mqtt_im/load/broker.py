"""Who is put under load."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

from mqtt_im.load import wire

DEVICE: Final = "dev"
PREFIX: Final = "im/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """An MQTT server, and what it makes of what is published."""

    port: int
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    form: wire.Form = wire.V311
    """The version of MQTT that its clients speak."""
    is_ours: bool = True
    """It speaks the IM protocol; the others only relay."""
    prefix: str = PREFIX
    """Of the topics; from a relay the same ones are got back, under any prefix."""
    user: str | None = None
    """Everybody logs in under this name; None: each under its own."""
    password: str | None = None

    def up(self, user: str) -> str:
        """Where the user's device publishes."""
        return f"{self.prefix}/{user}/{DEVICE}/up"

    def down(self, user: str) -> str:
        """Where the user's devices get what is for them."""
        return f"{self.prefix}/{user}/down"

    def login(self, user: str, password: str | None = None, *, clean: bool = True) -> bytes:
        """The CONNECT of a user's device."""
        return wire.connect(f"{user}:{DEVICE}", self.user or user, password or self.password, clean, self.form)
