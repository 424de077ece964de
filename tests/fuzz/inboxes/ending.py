"""What must be so at the end, when everything works and everybody has everything."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable

from mqtt_im.core.records import MESSAGES, Message, decode
from mqtt_im.core.rules import Who
from mqtt_im.mqtt import V311
from mqtt_im.protocol import requests as rq
from mqtt_im.store.queries import pages
from tests.support.im import Map
from tests.support.store import SqliteStore

from .device import DONE, REFUSED, Device, Request
from .judge import Broken, first_of, identity
from .saying import USERS

_ALL = 1_000_000


def compare(
    store: SqliteStore,
    now: int,
    devices: list[Device],
    requests: list[Request],
    refused: Iterable[tuple[str, str]],
    *,
    whole: bool,
) -> None:
    """Each device has had its user's inbox, and each request did what it was answered. Raises `Broken`.

    `refused`: user and `id` of what was refused for good at one time or the other. `whole`: the log has all that ever was in it.
    """
    for user in USERS:
        inbox = _inbox(store, user, now)
        head = inbox[-1]["pos"] if inbox else 0
        if store.engine.state.user(user).head != head:
            raise Broken(f"{user}: the inbox ends with {head}, and its head is {store.engine.state.user(user).head}")
        known = {item["pos"]: identity(item) for item in inbox if item["op"] != "void"}
        for device in devices:
            if device.user == user:
                device.judge.ended(head, known)
                _in_order(device, inbox, requests, set(refused))
    if whole:
        _once(store, requests)


def _inbox(store: SqliteStore, user: str, now: int) -> list[Map]:
    page = store.see(lambda engine: pages.sync(engine, Who(user, "", 0), rq.Sync(after=0), _ALL, _ALL), now)
    items: list[Map] = [json.loads(bytes(item)) for item in page["items"]]
    following = 1
    for item in items:
        if first_of(item) != following:
            raise Broken(f"{user}: the inbox has {first_of(item)} where {following} was next")
        following = item["pos"] + 1
    return items


def _in_order(device: Device, inbox: list[Map], requests: list[Request], refused: set[tuple[str, str]]) -> None:
    """What a device of MQTT 3.1.1 has published was committed in that order, but for what was refused before."""
    if device.version != V311:
        return
    user = device.user
    place = {item["id"]: item["pos"] for item in inbox if item["op"] == "msg" and item["from"] == user and "id" in item}
    mine = [each.fields.get("id", "") for each in requests if (each.by, each.device) == (user, device.name)]
    found = [place[name] for name in mine if name in place and (user, name) not in refused]
    if found != sorted(found):
        raise Broken(f"{device}: what was published one after the other was committed as {found}")


def _once(store: SqliteStore, requests: list[Request]) -> None:
    times: Counter[str] = Counter()
    seqs: dict[str, list[int]] = defaultdict(list)
    for _, data in store.engine.log.after(0):
        record = decode(data)
        if isinstance(record, MESSAGES):
            seqs[record.conv].append(record.seq)
        if isinstance(record, Message):
            times[record.id or ("?" if record.body is None else json.loads(record.body))] += 1
    for conv, found in seqs.items():
        if found != list(range(1, len(found) + 1)):
            raise Broken(f"{conv} has the messages {found}")
    for request in requests:
        if request.fields["op"] == "send":
            named = "id" in request.fields
            count = times[request.fields["id"] if named else request.fields["body"]]
            most = (1 if named else request.published) - (request.state == REFUSED)
            least = request.state == DONE and (named or not times["?"])  # a body that was recalled names nothing any more
            if not least <= count <= most:
                raise Broken(f"{request.by}/{request.device}: {request.fields} is stored {count} times, and was {request.state}")
