"""The account at the end: every device's stream and every request against what the server says it has stored.

Pure: it reads what the devices wrote down (`World`) and what an auditor read from the server (`Truth`), and returns faults.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .workload import FLOATERS, GROUPS, LONG_TTL_S, ROTATING, conversation, may_be_blocked
from .world import Content, Request, World

Inbox = dict[int, Content]
"""`pos` → the item there."""


@dataclass(slots=True)
class Truth:
    """What the server says, read by an auditor of each user when all is quiet."""

    inboxes: dict[str, Inbox] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    histories: dict[tuple[str, str], list[Content]] = field(default_factory=dict)
    """(user, conversation) → its messages as that user reads them."""
    marks: dict[tuple[str, str], dict[str, dict[str, int]]] = field(default_factory=dict)
    """(user who looks, conversation) → each member's `delivered` and `read`, as `convs` tells them."""


def check(world: World, truth: Truth) -> list[str]:
    """Every broken promise, in words; empty where all were kept."""
    index = _Index(world, truth)
    faults = list(world.faults)
    for part in (_numbering, _conversations, _streams, _requests, _amendments, _edits, _marks, _uplink_order):
        faults += part(index)
    return faults


class _Index:
    """The truth, arranged for questions."""

    def __init__(self, world: World, truth: Truth) -> None:
        self.world = world
        self.truth = truth
        self.sends: dict[str, Request] = {}
        self.by_key: dict[str, list[tuple[str, int]]] = defaultdict(list)
        """Key of a request → the messages (conv, seq) that it has made."""
        self.messages: dict[str, dict[int, Content]] = defaultdict(dict)
        """Conversation → `seq` → message, from the histories."""
        self.conflicts: list[str] = []
        for requests in world.requests.values():
            self.sends.update({each.key: each for each in requests if each.op == "send"})
        for (user, conv), history in truth.histories.items():
            for message in history:
                known = self.messages[conv].setdefault(message.seq, message)
                if known != message:
                    self.conflicts.append(f"{conv} {message.seq} is {message} to {user} and {known} to another member")
        for conv, found in self.messages.items():
            for seq, message in found.items():
                if (key := self.key_of(message)) is not None:
                    self.by_key[key].append((conv, seq))

    def key_of(self, message: Content) -> str | None:
        """The request that sent a message: named by its id, or by its body where it has none."""
        if message.id in self.sends:
            return message.id
        return message.key if message.key in self.sends else None


def _numbering(index: _Index) -> Iterator[str]:
    """`pos` and `seq` have no gaps."""
    for user, inbox in index.truth.inboxes.items():
        head = index.truth.heads[user]
        missing = [pos for pos in range(1, head + 1) if pos not in inbox]
        if missing or len(inbox) != head:
            yield f"inbox of {user}: gap: of 1…{head} these are missing: {missing[:10]}; it has {len(inbox)} items"
        for pos, item in inbox.items():
            if item.op == "void" and item.key not in ("replaced", "expired"):
                yield f"inbox of {user}: gap: pos {pos} is void ({item.key}), but nothing was removed in this run"
    for conv, found in index.messages.items():
        missing = [seq for seq in range(1, max(found, default=0) + 1) if seq not in found]
        if missing:
            yield f"{conv}: gap: these seqs are missing: {missing[:10]}"
    yield from index.conflicts


def _conversations(index: _Index) -> Iterator[str]:
    """Every member's inbox holds each message of a conversation once, in the order of `seq`; voids stand for what may be one."""
    for user, inbox in index.truth.inboxes.items():
        seen: dict[str, list[int]] = defaultdict(list)
        voids = 0
        for pos in sorted(inbox):
            item = inbox[pos]
            if item.op == "msg":
                seen[item.conv].append(item.seq)
                known = index.messages[item.conv].get(item.seq)
                if known is None or known != item:
                    yield f"inbox of {user}: pos {pos} is {item}, history has {known}"
            voids += item.op == "void"
        left_out = 0
        for conv, expected in _visible(index, user):
            found = seen.pop(conv, [])
            if found != sorted(found):
                yield f"inbox of {user}: {conv} is out of order: {_disorder(found)}"
            for seq, count in Counter(found).items():
                if count > 1:
                    yield f"inbox of {user}: {conv} {seq} is doubled"
            for seq in sorted(set(expected) - set(found)):
                if _may_vanish(index, index.messages[conv][seq], user):
                    left_out += 1
                else:
                    yield f"inbox of {user}: lost: {conv} {seq} {index.messages[conv][seq]}"
            for seq in sorted(set(found) - set(expected)):
                yield f"inbox of {user}: {conv} {seq} is not for this user"
        for conv in seen:
            yield f"inbox of {user}: messages of {conv}, which the user is not in"
        if voids != left_out:
            yield f"inbox of {user}: {voids} voids stand for {left_out} messages"


def _visible(index: _Index, user: str) -> Iterator[tuple[str, list[int]]]:
    """The conversations of a user with the seqs that belong into the inbox."""
    for conv, found in index.messages.items():
        if conv.startswith("#"):
            if user in GROUPS[conv]:
                yield conv, sorted(found)
            elif conv == ROTATING and user in FLOATERS:
                yield conv, _stays(found, user)
        elif user in conv.split(":"):
            yield conv, sorted(found)


def _stays(found: dict[int, Content], user: str) -> list[int]:
    """The seqs from each joining of a floater to the leaving, both included."""
    inside, seqs = False, []
    for seq in sorted(found):
        event, *names = found[seq].key.split(" ")
        joins = event == "group.add" and user in names
        leaves = event == "group.remove" and user in names
        if inside or joins:
            seqs.append(seq)
        inside = (inside or joins) and not leaves
    return seqs


def _may_vanish(index: _Index, message: Content, user: str) -> bool:
    """Whether a void may stand in the place of this message in this inbox."""
    request = index.sends.get(index.key_of(message) or "")
    if request is None or message.by == user:
        return False
    return "key" in request.fields or request.fields.get("ttl", LONG_TTL_S) < LONG_TTL_S


def _streams(index: _Index) -> Iterator[str]:
    """Every device has its user's inbox from its start to the head, and saw nothing that is not there."""
    for name, stream in index.world.streams.items():
        user = name.partition(":")[0]
        inbox, head = index.truth.inboxes[user], index.truth.heads[user]
        if stream.kept != head:
            yield f"{name}: acknowledged everything up to {stream.kept}, the head is {head}"
        for pos in range(stream.start + 1, min(stream.kept, head) + 1):
            if pos not in stream.seen:
                yield f"{name}: lost: pos {pos} never came: {inbox.get(pos)}"
        for pos, versions in stream.seen.items():
            for content in versions:
                if pos not in inbox:
                    yield f"{name}: pos {pos} came as {content} but is not stored"
                elif not _same(index, content, inbox[pos]):
                    yield f"{name}: pos {pos} came as {content}, stored is {inbox[pos]}"


def _same(index: _Index, seen: Content, stored: Content) -> bool:
    """Whether what a device saw is what is stored now, or what that was before it was amended or expired."""
    if seen.op == "sent":
        return (seen.conv, seen.seq, seen.ts, seen.id) == (stored.conv, stored.seq, stored.ts, stored.id) and stored.op == "msg"
    if stored.op == "void" and seen.op == "msg":
        request = index.sends.get(index.key_of(seen) or "")
        return stored.key == "expired" and request is not None and request.fields.get("ttl", LONG_TTL_S) < LONG_TTL_S
    if seen[:6] != stored[:6]:
        return False
    if stored.version == -1 or seen.version == -1:
        return stored.version == -1 and (seen.version != -1 or seen == stored)
    if seen.op in ("msg", "edited"):
        return seen.key == stored.key and seen.version <= stored.version
    return seen == stored


def _requests(index: _Index) -> Iterator[str]:
    """A message that was acknowledged exists exactly once, any other at most once, and is what was asked for and answered."""
    for name, requests in index.world.requests.items():
        user = name.partition(":")[0]
        for request in requests:
            if request.op != "send":
                continue
            places = index.by_key[request.key]
            conv = conversation(user, request.fields["to"])
            if len(places) > 1:
                yield f"{name}: {request.key} is doubled: {places}"
            elif request.acknowledged and not request.refused and not places:
                yield f"{name}: lost: {request.key} to {conv} was acknowledged ({request.answer}) and is not stored"
            for place, seq in places[:1]:
                message = index.messages[place][seq]
                if (place, message.by) != (conv, user):
                    yield f"{name}: {request.key} was sent to {conv} and is stored as {message}"
                answer = request.answer
                if answer is not None and (answer["conv"], answer["seq"], answer["ts"]) != (place, seq, message.ts):
                    yield f"{name}: {request.key} was answered with {answer} and is stored as {message}"
    for conv, found in index.messages.items():
        for seq, message in found.items():
            if index.key_of(message) is None and not message.key.startswith("group."):
                yield f"{conv} {seq}: nobody sent {message}"


_AMENDMENTS = {"edit": "edited", "recall": "recalled", "react": "reacted", "report": "report"}

Change = tuple[str, str, int, str]
"""Op of an item, conversation, `seq`, who did it; of a group change the op, the group, 0 and nobody."""


def _amendments(index: _Index) -> Iterator[str]:
    """As many `edited`, `recalled`, … items as there were acknowledged requests, and no more than were made; so with groups."""
    least: Counter[Change] = Counter()
    most: Counter[Change] = Counter()
    for name, requests in index.world.requests.items():
        for request in requests:
            what = _change(name.partition(":")[0], request)
            if what is None or request.refused:
                continue
            most[what] += 1
            # A device that forgets at PUBACK may not have seen that such a request was refused.
            least[what] += request.acknowledged and (request.answer is not None or request.op not in ("react", "report"))
    for user, inbox in index.truth.inboxes.items():
        found = Counter((item.op, item.conv, item.seq, item.by) for item in inbox.values() if item.op in _AMENDMENTS.values())
        for what in set(found) | set(most):
            if what[2] and _concerns(index, what, user) and not least[what] <= found[what] <= most[what]:
                yield f"inbox of {user}: {found[what]} of {what}, acknowledged {least[what]}, made {most[what]}"
    changes: Counter[Change] = Counter()
    for conv, messages in index.messages.items():
        for message in messages.values():
            if message.key.startswith("group.") and not message.key.startswith("group.create"):
                changes[message.key.partition(" ")[0], conv, 0, ""] += 1
    for what in set(changes) | {each for each in most if not each[2]}:
        if not least[what] <= changes[what] <= most[what]:
            yield f"{changes[what]} of {what}, acknowledged {least[what]}, made {most[what]}"


def _edits(index: _Index) -> Iterator[str]:
    """A message shows its last edit."""
    made: dict[tuple[str, int], list[Request]] = defaultdict(list)
    for requests in index.world.requests.values():
        for request in requests:
            if request.op == "edit" and not request.refused:
                made[request.fields["conv"], request.fields["seq"]].append(request)
    for (conv, seq), edits in made.items():
        shown = index.messages[conv][seq].version
        versions = [edit.fields["body"]["v"] for edit in edits]
        certain = max((edit.fields["body"]["v"] for edit in edits if edit.acknowledged), default=0)
        if shown != -1 and not certain <= shown <= max(versions):
            yield f"{conv} {seq}: shows version {shown}, acknowledged is {certain}, made {max(versions)}"


def _change(user: str, request: Request) -> Change | None:
    if request.op in _AMENDMENTS:
        return _AMENDMENTS[request.op], request.fields["conv"], request.fields["seq"], user
    if request.op.startswith("group."):
        return request.op, request.fields["group"], 0, ""
    return None


def _concerns(index: _Index, what: Change, user: str) -> bool:
    """Whether the item of this change belongs into the inbox of this user."""
    op, conv, seq, _ = what
    if op == "report":
        message = index.messages[conv].get(seq)
        return message is not None and message.by == user
    return any(conv == each for each, _ in _visible(index, user)) and not (conv == ROTATING and user in FLOATERS)


def _marks(index: _Index) -> Iterator[str]:
    """`read` holds what was acknowledged, and `delivered` reaches the last message of others that a member has got."""
    told: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, requests in index.world.requests.items():
        for request in requests:
            if request.op == "read" and request.acknowledged:
                told[name.partition(":")[0], request.fields["conv"]].append(request.fields["seq"])
    for (viewer, conv), members in index.truth.marks.items():
        for user, inbox in index.truth.inboxes.items():
            if user == viewer or user not in members:
                continue
            marks = members[user]
            others = [
                item.seq
                for item in inbox.values()
                if item.op == "msg" and item.conv == conv and item.by != user and not item.key.startswith("group.")
            ]
            read, delivered = max(told[user, conv], default=0), max(others, default=0)
            if marks.get("read", 0) < read or marks.get("delivered", 0) < max(read, delivered):
                yield f"{conv}: to {viewer} the marks of {user} are {marks}; read is {read}, delivered {delivered}"


def _uplink_order(index: _Index) -> Iterator[str]:
    """What one device published is committed in that order: so it stands in its user's own inbox.

    Where it may have been refused, for now or by a block, and the answer may have been lost, it is repeated behind the others.
    """
    for name, requests in index.world.requests.items():
        user = name.partition(":")[0]
        places = {key: pos for pos, item in index.truth.inboxes[user].items() if item.op == "msg" and (key := index.key_of(item))}
        held = [request for request in requests if not request.deferred and not may_be_blocked(user, request)]
        order = [(places[request.key], request.key) for request in held if request.key in places]
        for (before, earlier), (after, later) in pairwise(order):
            if after < before:
                yield f"{name}: published {earlier} before {later}, committed at pos {before} and {after}"


def _disorder(seqs: list[int]) -> Any:
    return next([a, b] for a, b in pairwise(seqs) if b < a)
