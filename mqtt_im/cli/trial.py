"""What the start of a server makes of a configuration that is right in itself, tried before anything is begun.

Keys, plugins and clients of other systems are made as the start makes them and let go of again. So `check-config` says no to just
what `serve` would refuse, machine and network aside, about which `doctor` speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path

from mqtt_im.config import Config, load
from mqtt_im.protocol.errors import ConfigError, MqttImError


def load_tried(file: Path | None, overrides: Iterable[str]) -> Config:
    """The configuration, with which a server can start. Raises `ConfigError` with one line for every mistake."""
    config = load(file, overrides)
    if mistakes := list(trial(config)):
        raise ConfigError(mistakes)
    return config


def trial(config: Config) -> Iterator[str]:
    """One line for each thing that the start would refuse."""
    for attempt in (tokens, _plugins, _files, _database):
        yield from attempt(config)


def tokens(config: Config) -> Iterator[str]:
    """The same of the keys that tokens are signed with."""
    if config.auth.mode == "jwt":
        from mqtt_im.bridge.logins.jwts import JwtVerifier

        yield from _refusal(lambda: JwtVerifier(config.auth.jwt))


def _plugins(config: Config) -> Iterator[str]:
    for name in config.mqtt.plugins:
        module, _, kind = name.rpartition(".")
        try:
            getattr(import_module(module), kind)
        except Exception as error:  # noqa: BLE001 - a module may do anything
            yield f"mqtt.plugins: {name} can't be imported: {error or type(error).__name__}"


def _files(config: Config) -> Iterator[str]:
    if config.files.url:
        from mqtt_im.files.service import blobs_of

        yield from _refusal(lambda: blobs_of(config.files, Path(config.data_dir)))


def _database(config: Config) -> Iterator[str]:
    if config.store.url:
        from mqtt_im.postgres.connecting import Database

        yield from _refusal(lambda: Database(config.store.url))


def _refusal(make: Callable[[], object]) -> Iterator[str]:
    try:
        make()
    except MqttImError as error:
        yield error.message
