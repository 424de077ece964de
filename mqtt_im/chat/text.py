"""What others wrote, made fit for a terminal: nobody's text moves the cursor, changes colours or hides what it is."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Final

_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}
_HIDDEN: Final = frozenset(("Cc", "Cs", "Co", "Cn", "Zl", "Zp"))
_JOINERS: Final = "\u200c\u200d"
"""Format characters that scripts and emoji are made with; the others can turn the line around."""


def escaped(text: str, keep: str = "") -> str:
    """The text without control characters, but for those in `keep`: they are shown as escapes."""
    return "".join(char if char in keep or not _is_hidden(char) else _escape(char) for char in text)


def shown(body: Any, keep: str = "") -> str:
    """A body as text: strings as they are, everything else as JSON, on one line unless `keep` has a newline."""
    if isinstance(body, str):
        return escaped(body, keep)
    if isinstance(body, bytes):
        return f"<{len(body)} bytes>"
    return escaped(json.dumps(body, ensure_ascii=False, default=_binary), keep)


def system(event: dict[str, Any], by: str) -> str:
    """What happened to a group, in words."""
    members = ", ".join(escaped(str(name)) for name in event.get("members") or ())
    user, role, name = (escaped(str(event.get(key, ""))) for key in ("user", "role", "name"))
    by = escaped(by)
    match event.get("event"):
        case "group.create":
            return f"{by} made the group" + (f" “{name}”" if name else "") + (f" with {members}" if members else "")
        case "group.add":
            return f"{by} added {members}"
        case "group.remove":
            return f"{by} removed {members}"
        case "group.leave":
            return f"{by} left"
        case "group.role":
            return f"{by} made {user} {role}"
        case "group.rename":
            return f"{by} named the group “{name}”"
    return f"{by}: {escaped(str(event.get('event', '')))}"


def _is_hidden(char: str) -> bool:
    category = unicodedata.category(char)
    return category in _HIDDEN or (category == "Cf" and char not in _JOINERS)


def _escape(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _binary(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
