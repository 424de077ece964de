"""What nodes tell each other, as the text of notifications: several short messages in one, a long one in parts.

A message is a list of JSON values: the incarnation of the node that tells, that of the node that is told (0: all), and what.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from mqtt_im.logs import RateLimited

MAX_BYTES: Final = 7_900
"""Of one notification; PostgreSQL takes 7,999."""
PIECE: Final = 7_600
"""Bytes of a part of a longer message, as JSON."""
_PART: Final = "part"

_log = RateLimited(logging.getLogger(__name__))


class Packer:
    """Of one node."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def packed(self, messages: Iterable[list[Any]]) -> Iterator[tuple[int, str]]:
        """Who is told, and a notification, in the order of the messages."""
        batch: list[str] = []
        size = to = 0
        for message in messages:
            for text in self._surely(message):
                length = len(text.encode()) + 1
                if batch and (message[1] != to or size + length > MAX_BYTES):
                    yield to, self._numbered(batch)
                    batch, size = [], 0
                to = message[1]
                batch.append(text)
                size += length
        if batch:
            yield to, self._numbered(batch)

    def _numbered(self, batch: list[str]) -> str:
        """With a number in front, since PostgreSQL leaves out a notification that is the same as one of its transaction."""
        return f"[{next(self._numbers)},{','.join(batch)}]"

    def _surely(self, message: list[Any]) -> list[str]:
        """See `_texts`. A mistake of ours costs this message alone: what must not be lost is sent until it could be."""
        try:
            return list(self._texts(message))
        except Exception as error:  # noqa: BLE001 - told in the log
            _log.exception("a message to other nodes can't be told", error, kind=message[2])
            return []

    def _texts(self, message: list[Any]) -> Iterator[str]:
        text = _json(message)
        if len(text.encode()) < MAX_BYTES:
            yield text
            return
        number, pieces = next(self._numbers), list(_pieces(text))
        for index, piece in enumerate(pieces):
            yield _json([*message[:2], _PART, number, index, len(pieces), piece])


class Unpacker:
    """Puts the long messages of other nodes together."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[int, list[str]]] = {}
        """Of each node: the number of its long message, and what has come of it."""

    def forget(self) -> None:
        """What has come of long messages is not gone on with."""
        self._parts.clear()

    def unpacked(self, payload: str, mine: int) -> list[list[Any]]:
        """The messages that are complete now, as far as they are for this node, and none of its own."""
        found = []
        for message in json.loads(payload)[1:]:
            if message[0] == mine or message[1] not in (0, mine):
                continue
            whole = message if message[2] != _PART else self._joined(message[0], *message[3:])
            if whole is not None:
                found.append(whole)
        return found

    def _joined(self, sender: int, number: int, index: int, count: int, text: str) -> list[Any] | None:
        known, parts = self._parts.get(sender, (0, []))
        if index == 0:
            known, parts = self._parts[sender] = number, []
        if known != number or len(parts) != index:
            return None  # its beginning was missed
        parts.append(text)
        if index + 1 < count:
            return None
        del self._parts[sender]
        whole: list[Any] = json.loads("".join(parts))
        return whole


def _json(message: list[Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        length = PIECE
        while len(_json([text[start : start + length]]).encode()) > PIECE:
            length //= 2
        yield text[start : start + length]
        start += length
