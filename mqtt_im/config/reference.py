"""The reference page of the configuration, made from the schema."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import msgspec

from mqtt_im.config.schema import Key, keys_of, sections

_HEAD = """# Configuration

<!-- Made by `python -m mqtt_im.config` from mqtt_im/config/sections; change it there. -->

The file is TOML. `-c FILE` names it, else the environment variable `MQTT_IM_CONFIG`, else it is `mqtt-im.toml` in the
folder where the server is started, where that exists. Every key has a default, so an empty file is a server.

An environment variable `MQTT_IM__SECTION__KEY` goes over the file, and `--set section.key=value` over both. There a text
needs no quotes, and a list is a TOML array or its entries separated by commas. `mqtt-im check-config` tells every mistake in
one line each, an unknown key with the nearest known one.
"""


def render() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for name, struct in sections():
        title = f"`[{name}]`" if name else "At the top"
        summary = "" if not name else f"{(struct.__doc__ or '').strip()}\n\n"
        rows = "".join(_row(key) for key in keys_of(name, struct))
        parts.append(f"## {title}\n\n{summary}| key | type | default | what it does |\n|---|---|---|---|\n{rows}")
    return "\n".join(parts)


def _row(key: Key) -> str:
    cells = (f"`{key.name.rpartition('.')[2]}`<br>`{key.environment}`", _type(key), f"`{toml(key.default)}`", key.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _type(key: Key) -> str:
    if get_origin(key.plain_type) is Literal:
        return ", ".join(f"`{toml(choice)}`" for choice in get_args(key.plain_type))
    if get_origin(key.plain_type) is tuple:
        entry = get_args(key.plain_type)[0]
        return "list of " + (", ".join(f"`{toml(each)}`" for each in get_args(entry)) or "texts")
    if get_origin(key.plain_type) is dict:
        return "table of tables"
    name = {str: "text", int: "whole number", float: "number", bool: "true or false"}[key.plain_type]
    meta: msgspec.Meta = get_args(key.type)[1]
    bounds = []
    if meta.ge is not None:
        bounds.append(f"≥ {meta.ge:,}")
    if meta.gt is not None:
        bounds.append(f"> {meta.gt:,}")
    if meta.le is not None:
        bounds.append(f"≤ {meta.le:,}")
    return f"{name} {', '.join(bounds)}".rstrip()


def toml(value: Any) -> str:
    """A default as it would stand in the file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{name}" = {toml(entry)}' for name, entry in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(entry) for entry in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
