"""Changes under way, as an app has them: each with an `Outgoing` that tells what became of it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from . import clock
from .changes import ABSENT
from .core.entries import UNCOUNTED, Entry
from .engine import Engine
from .errors import OutboxFull, SendFailed
from .outgoing import Outgoing
from .payload import Codec, encode
from .receipts import Receipts
from .store.interface import Row
from .store.writer import Writer

_log = logging.getLogger(__name__)

Map = dict[str, Any]
_OWN: Final = frozenset(("op", "n"))
_SLICE: Final = 50
"""Entries that are worked on in one turn of the loop, where there may be many."""


class Sending:
    """Lives as long as a client is open."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        *,
        codec: Codec,
        limit: int,
        follow: Callable[[Outgoing], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._session = engine.session
        self._writer = writer
        self._codec = codec
        self._limit = limit
        self._follow = follow
        self._boot = clock.boot()
        self._inserting = 0
        self._rows: dict[str, Row] = {}
        """Of the `read`s that may still be changed, what the disk has."""
        self._open: dict[str, Outgoing] = {}
        """By id: what has no answer yet."""
        self._late: weakref.WeakValueDictionary[str, Outgoing] = weakref.WeakValueDictionary()
        """By id: what was given up, and may have been committed all the same."""
        self.receipts = Receipts(self._session.user)

    async def load(self, rows: Sequence[Row]) -> None:
        """The outbox holds what the store held of it; called once, before anything else."""
        for first in range(0, len(rows), _SLICE):
            for row in rows[first : first + _SLICE]:
                entry = entry_of(row, self._boot)
                self._session.outbox.add(entry)
                self._open[entry.id] = self._outgoing(entry)
            await asyncio.sleep(0)

    def outgoing(self) -> list[Outgoing]:
        """What has no answer yet, in the order of the app."""
        return [self._open[request_id] for request_id in self._session.outbox.open if request_id in self._open]

    async def change(self, op: str, fields: Map, body: Any, timeout: float | None) -> Outgoing:
        """A change is on disk and in the outbox when this returns, in neither when it raises; where it is cancelled it may be."""
        fields = {name: value for name, value in fields.items() if value is not None}
        given = fields.pop("id", None)
        if given is not None and (known := self._open.get(given)) is not None:
            return self._same(known.entry, op, fields, body)
        if op == "read":
            merged = await self._merge(fields)
            if merged is not None:
                return merged
        elif len(self._session.outbox) + self._inserting >= self._limit:
            raise OutboxFull(f"{self._limit} changes wait for their answer")
        row = self._row(op, secrets.token_urlsafe(9) if given is None else given, fields, body, timeout)
        entry = entry_of(row, self._boot)
        outgoing = self._outgoing(entry)
        if (too_large := self._session.over_limit(entry)) is not None:
            outgoing.failed("too_large", too_large)
            return outgoing
        await self._insert(row, entry, outgoing)
        return outgoing

    def _row(self, op: str, request_id: str, fields: Map, body: Any, timeout: float | None) -> Row:
        if not isinstance(request_id, str) or not 1 <= len(request_id) <= 64:
            raise ValueError("id: a text of 1 to 64 characters")
        if taken := _OWN & fields.keys():
            raise ValueError(f"{', '.join(sorted(taken))}: the outbox's own, not a field to give")
        ttl = fields.get("ttl")
        if ttl is not None and (not isinstance(ttl, int) or ttl < 1):
            raise ValueError("ttl: whole seconds, at least 1")
        raw = None if body is ABSENT else encode(body, self._codec)
        encode(fields, self._codec)  # raises where it has no form on the wire
        counted = op not in UNCOUNTED
        outbox = self._session.outbox
        goes = self._session.phase == "online" and not self._inserting and outbox.would_go(counted=counted)
        key, n = outbox.reserve(counted=counted)
        return Row(
            key=key,
            id=request_id,
            op=op,
            fields=fields,
            codec=self._codec,
            raw=raw,
            n=n,
            tried=goes,
            made=time.time(),
            made_up=clock.now(),
            boot=self._boot,
            ttl=ttl,
            timeout=timeout,
        )

    async def _insert(self, row: Row, entry: Entry, outgoing: Outgoing) -> None:
        self._inserting += 1
        self._open[entry.id] = outgoing

        def written(done: asyncio.Future[None]) -> None:
            self._inserting -= 1
            if done.cancelled() or done.exception() is not None:
                self._open.pop(entry.id, None)
                return
            self._session.outbox.add(entry)
            if entry.op == "read":
                self._rows[entry.id] = row
            self._engine.apply(self._session.pump(clock.now()))

        stored = self._writer.call(lambda store: store.add(row))
        stored.add_done_callback(written)
        await asyncio.shield(stored)

    def _same(self, entry: Entry, op: str, fields: Map, body: Any) -> Outgoing:
        raw = None if body is ABSENT else encode(body, entry.codec)
        if (entry.op, entry.fields, entry.raw) != (op, fields, raw):
            raise SendFailed("conflict", f"{entry.id!r} waits in the outbox already, and says something else")
        return self._open[entry.id]

    async def _merge(self, fields: Map) -> Outgoing | None:
        """A `read` goes into the one of the same conversation that was not tried yet."""
        entry = self._session.outbox.read_of(fields["conv"])
        if entry is None or (row := self._rows.get(entry.id)) is None or (outgoing := self._open.get(entry.id)) is None:
            return None
        if fields["seq"] > entry.fields["seq"]:
            entry.fields = {**entry.fields, "seq": fields["seq"]}
            row = self._rows[entry.id] = replace(row, fields=entry.fields)
            await asyncio.shield(self._writer.call(lambda store: store.replace(row)))
        return outgoing

    def _outgoing(self, entry: Entry) -> Outgoing:
        return Outgoing(entry, self._cancel, self._follow)

    async def _cancel(self, entry: Entry) -> bool:
        if entry.tried or not self._session.outbox.give_up(entry):
            return False
        self.failed(entry, "cancelled", "taken back before it was sent")
        last_n = self._session.outbox.last_n
        await asyncio.shield(self._writer.call(lambda store: store.remove(entry.key, last_n)))
        return True

    # What the engine tells

    def answered(self, entry: Entry, answer: Map) -> None:
        """The server has done it."""
        self._rows.pop(entry.id, None)
        outgoing = self._open.pop(entry.id, None) or self._late.pop(entry.id, None)
        if outgoing is not None:
            self._sent(outgoing, answer)

    def answered_late(self, request_id: str, answer: Map) -> None:
        """The server tells of something that was given up, or that nobody holds any more."""
        if answer.get("op") == "sent" and (late := self._late.pop(request_id, None)) is not None:
            self._sent(late, answer)

    def _sent(self, outgoing: Outgoing, answer: Map) -> None:
        outgoing.answered(answer)
        if outgoing.op == "send" and outgoing.conv is not None:
            self.receipts.follow(outgoing)

    def failed(self, entry: Entry, code: str, message: str) -> None:
        """It was refused, or given up."""
        self._rows.pop(entry.id, None)
        outgoing = self._open.pop(entry.id, None)
        if outgoing is not None:
            _log.info("%s %s was not sent: %s", entry.op, entry.id, code)
            outgoing.failed(code, message)
            if code in ("timeout", "expired"):
                self._late[entry.id] = outgoing

    async def close(self, error: Exception) -> None:
        """Who waits for an answer is told that none comes."""
        abandoned = list(self._open.values())
        self._open.clear()
        for first in range(0, len(abandoned), _SLICE):
            for outgoing in abandoned[first : first + _SLICE]:
                outgoing.abandon(error)
            await asyncio.sleep(0)


def entry_of(row: Row, boot: str) -> Entry:
    """The entry of the outbox that a row stands for, its times on this process's clock."""
    made = clock.now() - clock.elapsed(row.made, row.made_up, row.boot, boot)
    return Entry(
        key=row.key,
        id=row.id,
        op=row.op,
        fields=row.fields,
        codec=row.codec,
        raw=row.raw,
        n=row.n,
        tried=row.tried,
        expires=None if row.ttl is None else made + row.ttl,
        deadline=None if row.timeout is None else made + row.timeout,
        made=made,
        made_ms=int(row.made * 1000),
    )
