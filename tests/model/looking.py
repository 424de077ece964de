"""All that can be seen of a store, as plain data: for comparing two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mqtt_im.core.entries import Entry
from mqtt_im.core.records import AnyRecord, encode
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import answer
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.devices import DeviceState
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import belongings, listings, pages, visibility

from .actions import CONVS, DEVICES, GROUPS, IDS, USERS

ALL = 10**6


def outcome(job: Job, now: int) -> dict[str, Any]:
    """What came of a job, for whoever asked and for whoever is connected."""
    told: dict[str, Any] = {"refusal": _refusal(job.refusal)}
    if job.commits is not None:
        told["commits"] = [
            {
                "lsn": commit.lsn,
                "record": encode(commit.record),
                "to": commit.to,
                "away": commit.away,
                "items": None if commit.entry is None else [_shown(commit.entry, *to, now) for to in commit.to],
            }
            for commit in job.commits
        ]
    if job.receipts is not None:
        told["receipts"] = [(mark.conv, mark.by, mark.delivered, mark.read, mark.to) for mark in job.receipts]
    if isinstance(job, RequestJob):
        told["reply"] = job.decision.reply if job.decision is not None else None
        told["device"] = _device(job.device_state)
    elif isinstance(job, AttachJob):
        told["device"] = _device(job.state), job.sent_upto, job.was_exposed
    elif isinstance(job, FetchJob):
        told["fetched"] = job.head, [_shown(entry, job.user, pos, now) for pos, entry in job.entries]
    elif isinstance(job, CallJob):
        told["result"] = _plain(job.result)
    return told


def look(engine: Readable, now: int) -> dict[object, Any]:
    """Everything that clients can come to see, whichever way."""
    seen: dict[object, Any] = {}
    for user in USERS:
        seen[user] = _of_user(engine, user, now)
        for device in DEVICES:
            who = Who(user, device, now)
            seen[user, device] = _device(DeviceState.read(engine, user, device))
            seen[user, device, "inbox"] = _plain(pages.sync(engine, who, rq.Sync(after=0), ALL, ALL))
        for conv in CONVS:
            who = Who(user, "pc", now)
            for after, before, limit in ((None, None, ALL), (0, None, 2), (None, 5, 2), (2, 6, ALL)):
                request = rq.History(conv=conv, after=after, before=before)
                seen[user, conv, after, before] = _asked(pages.history, engine, who, request, limit, ALL)
        for group in GROUPS:
            who, asked = Who(user, "pc", now), rq.GroupInfo(group=group)
            seen[user, group, "info"] = _asked(listings.group_info, engine, who, asked, ALL, ALL)
    return seen


def bare(seen: dict[object, Any]) -> dict[object, Any]:
    """A look without what records name of who has their items, which those of large groups do not."""
    for user in USERS:
        told = seen[user]
        told["requests"] = {name: found and found[0] for name, found in told["requests"].items()}
        for name in ("keyed", "packets"):
            told[name] = [found and msgspec.msgpack.decode(found)[:6] for found in told[name]]
    return seen


def told(engine: Readable, user: str, now: int) -> dict[str, Any]:
    """What one user's reads can tell."""
    who = Who(user, "pc", now)
    return {
        "inbox": _plain(pages.sync(engine, who, rq.Sync(after=0), ALL, ALL)),
        "convs": _plain(listings.convs(engine, who, rq.Convs(), ALL, ALL)),
        "devices": belongings.devices(engine, who),
        "history": [_asked(pages.history, engine, who, rq.History(conv=conv), ALL, ALL) for conv in CONVS],
        "info": [_asked(listings.group_info, engine, who, rq.GroupInfo(group=group), ALL, ALL) for group in GROUPS],
        "presence": [visibility.sees_presence(engine, user, other) for other in USERS],
        "typing": [_asked(visibility.typing_audience, engine, who, to) for to in (*USERS, *GROUPS)],
    }


def difference(found: Any, wanted: Any, where: str = "") -> str:
    """The first place where two of these differ."""
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        pairs = [(key, found[key], wanted[key]) for key in found]
    elif isinstance(found, list | tuple) and isinstance(wanted, list | tuple) and len(found) == len(wanted):
        pairs = list(zip(range(len(found)), found, wanted, strict=True))
    else:
        return f"{where}: {found!r} instead of {wanted!r}"
    return next(difference(left, right, f"{where}/{key}") for key, left, right in pairs if left != right)


def _of_user(engine: Readable, user: str, now: int) -> dict[str, Any]:
    state = engine.state
    who = Who(user, "pc", now)
    owner = state.user(user)
    return {
        "numbers": (owner.head, owner.floor, owner.acked, owner.registered),
        "usage": (owner.sent, owner.sent_bytes, owner.gone, owner.gone_bytes, owner.joined, owner.made),
        "settings": (sorted(owner.blocks), owner.mutes, owner.read_receipts, owner.presence),
        "convs": _plain(listings.convs(engine, who, rq.Convs(), ALL, ALL)),
        "devices": belongings.devices(engine, who),
        "delivered": sorted(_pairs(state.delivered(user, 0, owner.head))),
        "requests": {name: _answer(state.request(user, name), name, user) for name in IDS},
        "keyed": [_record(state.keyed(user, conv, "k")) for conv in CONVS],
        "packets": [_record(state.packet(user, device, session, 1)) for device in DEVICES for session in "st"],
        "presence": [visibility.sees_presence(engine, user, other) for other in USERS],
        "shares": [visibility.shares_conversation(engine, user, other) for other in USERS],
        "typing": [_asked(visibility.typing_audience, engine, who, to) for to in (*USERS, *GROUPS)],
        "seen": belongings.last_seen(engine, user),
    }


def _pairs(marks: list[str | int]) -> list[tuple[str | int, str | int]]:
    return list(zip(marks[::2], marks[1::2], strict=True))


def _answer(record: AnyRecord | None, request_id: str, user: str) -> Any:
    return None if record is None else (answer(record, request_id, user), encode(record))


def _record(record: AnyRecord | None) -> bytes | None:
    return None if record is None else encode(record)


def _shown(entry: Entry, user: str, pos: int, now: int) -> Any:
    items = [entry.item(pos, user, device, now) for device in DEVICES]
    return items, entry.is_void(user, now), entry.seq, entry.keyed, entry.recalled


def _device(state: DeviceState | None) -> Any:
    if state is None:
        return None
    return state.cursor, state.head, state.floor, state.n, state.app, state.registered


def _asked(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return _plain(call(*arguments))
    except Refusal as refusal:
        return _refusal(refusal)


def _refusal(refusal: Refusal | None) -> Any:
    return None if refusal is None else (refusal.code, refusal.message, refusal.expected)


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
