"""Names of users, devices, groups and conversations (PROTOCOL §2, §3)."""

from __future__ import annotations

import re
from typing import Final

_ID: Final = r"(?!\.{1,2}\Z)[A-Za-z0-9_.\-]{1,64}\Z"
_NAME: Final = re.compile(_ID)
_GROUP: Final = re.compile("#" + _ID)


def is_user(text: str) -> bool:
    """Whether `text` is a user id: 1–64 of `A-Z a-z 0-9 _ . -`, but not `.` or `..`, which paths and URLs have a use for."""
    return _NAME.match(text) is not None


def is_device(text: str) -> bool:
    """Whether `text` is a device id; the rule of a user id."""
    return _NAME.match(text) is not None


def is_group(text: str) -> bool:
    """Whether `text` is a group id: `#` and then the rule of a user id."""
    return _GROUP.match(text) is not None


def is_file(text: str) -> bool:
    """Whether `text` may be the id of a file, which the server makes of the letters of a user id."""
    return _NAME.match(text) is not None


def direct(a: str, b: str) -> str:
    """The conversation of two users: both ids, sorted, joined with `:`; of one user with itself, `a:a`."""
    return f"{a}:{b}" if a <= b else f"{b}:{a}"


def members_of_direct(conv: str) -> tuple[str, str] | None:
    """The two users of a direct conversation id, in its order; None where `conv` is not one."""
    a, colon, b = conv.partition(":")
    if colon and a <= b and is_user(a) and is_user(b):
        return a, b
    return None
