"""Reads a configuration: the file, over it the environment, over both `--set`. All mistakes are told at once."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from mqtt_im.config.checks import check
from mqtt_im.config.schema import ENVIRONMENT_PREFIX, KEYS, SECTIONS, Config, Key
from mqtt_im.protocol.errors import ConfigError

FILE_VARIABLE = "MQTT_IM_CONFIG"
DEFAULT_FILE = "mqtt-im.toml"


def load(
    file: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration from `file`, the environment and `overrides` (`section.key=value` each).

    Without `file` it is the one that `MQTT_IM_CONFIG` names, else `./mqtt-im.toml` where that exists. Raises
    `ConfigError` with one line for every mistake.
    """
    environment = os.environ if environment is None else environment
    reader = _Reader()
    path = find_file(file, environment)
    if path is not None:
        reader.read_file(path)
    for name, text in environment_overrides(environment):
        reader.read_text(name, text, f"from {ENVIRONMENT_PREFIX}{name.upper().replace('.', '__')}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if equals:
            reader.read_text(name.strip(), text.strip(), "from --set")
        else:
            reader.mistakes.append(f"{override}: --set needs section.key=value")
    return reader.finish()


def find_file(file: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Path | None:
    """The configuration file to read; None where there is none."""
    if file is not None:
        return Path(file)
    if environment.get(FILE_VARIABLE):
        return Path(environment[FILE_VARIABLE])
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def environment_overrides(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The keys that the environment sets, with their values: `MQTT_IM__MQTT__BIND` is `mqtt.bind`."""
    return [
        (name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), text)
        for name, text in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX)
    ]


class _Reader:
    """Collects values and mistakes; later values of a key go over earlier ones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.mistakes: list[str] = []

    def read_file(self, path: Path) -> None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.mistakes.append(f"{path}: can't be read: {error.strerror or error}")
        except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
            self.mistakes.append(f"{path}: is not TOML: {error}")
        else:
            self._read_table(tree, "")

    def _read_table(self, table: dict[str, Any], section: str) -> None:
        for name, value in table.items():
            full = f"{section}.{name}" if section else name
            if full in SECTIONS and isinstance(value, dict):
                self._read_table(value, full)
            else:
                self._take(full, value, "")

    def read_text(self, name: str, text: str, source: str) -> None:
        """Take a value that came as text, read as its key's type."""
        key = KEYS.get(name)
        if key is None:
            self._take(name, text, source)
            return
        try:
            value = parse_text(key, text)
        except ValueError as error:
            self.mistakes.append(f"{name}: {error} ({source})")
        else:
            self._take(name, value, source)

    def _take(self, name: str, value: Any, source: str) -> None:
        suffix = f" ({source})" if source else ""
        key = KEYS.get(name)
        if key is None:
            what = f"is a section, [{name}], with keys of its own" if name in SECTIONS else _unknown(name)
            self.mistakes.append(f"{name}: {what}{suffix}")
            return
        try:
            self.values[name] = msgspec.convert(value, key.type)
        except msgspec.ValidationError as error:
            self.mistakes.append(f"{name}: {_wrong(key, value, error)}{suffix}")

    def finish(self) -> Config:
        """The configuration. Rules between keys are checked with defaults in place of what could not be read."""
        tree: dict[str, Any] = {}
        for name, value in self.values.items():
            *sections, last = name.split(".")
            table = tree
            for section in sections:
                table = table.setdefault(section, {})
            table[last] = value
        config = msgspec.convert(tree, Config)
        mistakes = self.mistakes + list(check(config))
        if mistakes:
            raise ConfigError(mistakes)
        return config


def parse_text(key: Key, text: str) -> Any:
    """Read the text of an environment variable or of `--set` as a value for `key`. Raises `ValueError`.

    A list is a TOML or JSON array, or its entries separated by commas; a table is a TOML inline table; a text may stand
    without quotes.
    """
    if key.plain_type is int:
        return _number(int, "a whole number", text)
    if key.plain_type is float:
        return _number(float, "a number", text)
    if key.plain_type is bool:
        lowered = text.strip().lower()
        if lowered in ("true", "false"):
            return lowered == "true"
        raise ValueError(f"expected true or false, got {text!r}")
    if get_origin(key.plain_type) is tuple:
        return _list(text)
    if get_origin(key.plain_type) is dict:
        return _toml(text, "a table")
    return text


def _number(kind: type[int | float], wanted: str, text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"expected {wanted}, got {text!r}") from None


def _list(text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    value: list[Any] = _toml(text, "a list")
    return value


def _toml(text: str, wanted: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        raise ValueError(f"expected {wanted}, got {text!r}") from None


_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _wrong(key: Key, value: Any, error: msgspec.ValidationError) -> str:
    """Say what a value should have been, without showing a text, which might be a secret."""
    is_list = get_origin(key.plain_type) is tuple
    entry = get_args(key.plain_type)[0] if is_list else key.plain_type
    if get_origin(entry) is Literal:
        return f"expected {'a list' if is_list else 'one'} of {', '.join(get_args(entry))}, got {value!r}"
    message, _, place = str(error).partition(" - at ")
    wanted, _, got = message.removeprefix("Expected ").partition(", got ")
    kind, _, limit = wanted.partition(" ")
    text = f"expected {_TYPE_NAMES.get(kind.strip('`'), kind)}" + (f" {limit}" if limit else "")
    if place and not is_list:
        text += " for each name"
    text += f", got {_TYPE_NAMES.get(got.strip('`'), got)}" if got else f", got {value!r}"
    return f"{text} in entry {int(place.strip('`$[]')) + 1}" if place and is_list else text


def _unknown(name: str) -> str:
    """Say that a key is not known, and which known one it may have meant."""
    known = [*KEYS, *(section for section in SECTIONS if not name.startswith(f"{section}."))]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        last = name.rpartition(".")[2]
        by_last = {key.rpartition(".")[2]: key for key in KEYS}
        near = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)]
    if not near and (section := name.partition(".")[0]) in SECTIONS:
        near = difflib.get_close_matches(name, [key for key in KEYS if key.startswith(f"{section}.")], n=1, cutoff=0.0)
    elif not near:
        near = difflib.get_close_matches(section, SECTIONS, n=1, cutoff=0.5)
    return "unknown key" + (f"; the nearest known one is {near[0]}" if near else "; docs/configuration.md lists them all")
