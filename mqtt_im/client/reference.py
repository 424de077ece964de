"""The API reference, made from the docstrings: `python -m mqtt_im.client.reference` writes docs/api.md anew."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mqtt_im import client
from mqtt_im.client import sync
from mqtt_im.client.iterators import Reader

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "api.md"

_HEAD: Final = """# The API of the Python client

<!-- Made by `python -m mqtt_im.client.reference` from the docstrings of mqtt_im/client; change them there. -->

Everything that `mqtt_im.client` exports. [client.md](client.md) is the tutorial.
"""
_GROUPS: Final = {
    "The client": ("Client",),
    "What was sent": ("Outgoing",),
    "What comes": ("Message", "Conversation", "Page", "State"),
    "Events": ("Edited", "Recalled", "Reacted", "Reported", "Void", "Receipt", "Typing", "Presence", "Lost"),
    "Errors": (
        "ClientError",
        "SendFailed",
        "RequestFailed",
        "Offline",
        "OutboxFull",
        "Refused",
        "StoreInUse",
        "StoreUnusable",
    ),
}

_INNER: Final = frozenset(
    {
        "Outgoing.become",
        "Outgoing.abandon",
        "Outgoing.answered",
        "Outgoing.failed",
        "Reader.end",
        "sync.Client.wait",
        "sync.Client.later",
    }
)
"""What has no underscore, since other parts of the library call it, and is for nobody else."""
_DESCRIBED: Final = re.compile(
    r'^ {4,8}(?:self\.)?([a-z]\w*)(?:: [^=\n]+)?(?: = [^\n]+)?\n {4,8}"""(.+?)"""', re.MULTILINE | re.DOTALL
)
"""An attribute with the text behind it."""


def render() -> str:
    """The page, in Markdown. Raises `LookupError` where something that is exported has no place on it."""
    named = {name for names in _GROUPS.values() for name in names} | {"Event"}
    if missing := set(client.__all__) ^ named:
        raise LookupError(f"mqtt_im.client exports what the page does not group, or the other way round: {sorted(missing)}")
    parts = [_HEAD]
    for title, names in _GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += _class(name, getattr(client, name))
    parts.append("## Without asyncio\n")
    parts.append(f"`mqtt_im.client.sync`: {_text(sync, paragraphs=1)}\n")
    parts += _class("sync.Client", sync.Client, skip=frozenset(_members(client.Client)))
    parts.append("## Iterators\n")
    parts += _class("Reader", Reader)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _class(name: str, kind: type[Any], skip: frozenset[str] = frozenset()) -> Iterator[str]:
    is_error = issubclass(kind, Exception)
    signature = "" if is_error or name in ("State", "Message", "Outgoing", "Page", "Reader") else _signature(kind)
    yield f"### `{name}`\n"
    if signature:
        yield f"```python\n{name}{signature}\n```\n"
    yield _text(kind) + "\n"
    fields = dict(_fields(kind))
    if fields:
        yield "| | |\n|---|---|"
        yield "\n".join(f"| `{field}` | {words} |" for field, words in fields.items()) + "\n"
    for member, value in _members(kind).items():
        if member in skip or member in fields or f"{name}.{member}" in _INNER:
            continue
        if isinstance(value, property):
            yield f"**`{member}`** {_text(value)}\n"
        else:
            prefix = "await " if inspect.iscoroutinefunction(value) else ""
            yield f"**`{prefix}{member}{_signature(value, method=True)}`** {_text(value)}\n"


def _members(kind: type[Any]) -> dict[str, Any]:
    """Public methods and properties of ours, in the order of the source, the class's own first."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith("mqtt_im."):
            continue
        for name, value in vars(base).items():
            if not name.startswith("_") and name not in found and (inspect.isfunction(value) or isinstance(value, property)):
                found[name] = value
    return found


def _fields(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """Attributes with the text behind them in the source."""
    if issubclass(kind, Exception) or kind in (client.Client, sync.Client):
        return
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return
    for name, words in _DESCRIBED.findall(source):
        if not name.startswith("_"):
            yield name, " ".join(words.split())


def _signature(value: Callable[..., Any], *, method: bool = False) -> str:
    found = inspect.signature(value)
    parts: list[str] = []
    starred = False
    for parameter in list(found.parameters.values())[1 if method else 0 :]:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        text = f"{stars}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            default = repr(parameter.default)
            text += " = " + ("…" if default.startswith("<") else default)  # no value that could be given
        parts.append(text)
    returned = "" if found.return_annotation in (found.empty, "None", None) else f" -> {found.return_annotation}"
    return f"({', '.join(parts)}){returned}"


def _text(value: Any, paragraphs: int | None = None) -> str:
    return " ".join("\n\n".join((inspect.getdoc(value) or "").split("\n\n")[:paragraphs]).split())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
