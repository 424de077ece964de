"""Which keys of the configuration a running server takes over, and which take a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mqtt_im.config import KEYS, Config

_RELOADABLE: Final = (
    "log.",
    "limits.failed_logins_per_minute",
    "auth.credential_cache_s",
    "auth.jwt.",
    "mqtt.plain_topics",
    "mqtt.tls.cert",
    "mqtt.tls.key",
    "mqtt.tls.client_ca",
    "mqtt.tls.crl",
    "http.tls.cert",
    "http.tls.key",
)


def take_restart(former: Config, config: Config) -> Iterator[str]:
    """The names of keys that have changed and are not taken over."""
    for name in KEYS:
        if _value_of(config, name) != _value_of(former, name) and not name.startswith(_RELOADABLE):
            yield name


def _value_of(config: Config, name: str) -> object:
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
