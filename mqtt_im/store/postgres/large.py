"""Large groups: what their members are told stands in the log once, and each member takes it into the inbox later.

A group is large from the change on that makes it more than `MEMBERS` strong, and stays so. Whatever its members are told after
that is numbered in table `told`, under the group's lock (an *act*). Only who has caused it, and who joins or leaves with it, has
the item at once; `member.pulled` says up to which act each present member has taken what there is. That is *pulled* under the
user's lock, in the same transaction in which the items come to the inbox: when a device comes, when a node that has the user
online finds that the group has grown, and before the user is told anything of the group at once. So what a conversation tells
stands in its order in every inbox, and what several conversations tell in whichever.

A message that a later one with the same `key` has replaced by then comes as a void. One that stands in the inbox already becomes
a void when the later one is taken, where nobody was offered it, as in a small group.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from mqtt_im.core.model import Conv, Member

from .wire import Statement

MEMBERS: Final = 200
"""A group with more members is large."""
SINCE: Final = 2
"""The schema that bears it: a node of an older release would write out what is not to be."""
NONE: Final = -1
LOOK_BACK: Final = 1000
"""Among so many of the newest items of an inbox what is to be replaced is looked for."""
PAGE: Final = 2000
"""Items that are taken into inboxes at once, 8 bytes each."""

LAGS: Final = Statement(
    "SELECT m.uid, m.cid, m.pulled, g.acts FROM member m JOIN grp g USING (cid)"
    " WHERE m.uid = ANY ($1) AND m.active AND g.large AND m.pulled < g.acts",
    "I",
)
WAITING: Final = Statement(
    "SELECT coalesce(sum(g.acts - m.pulled), 0)::int8 FROM member m JOIN grp g USING (cid)"
    " WHERE m.uid = $1 AND m.active AND g.large",
    "i",
)
NOT_TAKEN: Final = Statement(
    "SELECT u.name FROM told t JOIN member m ON m.cid = t.cid AND m.active AND m.pulled < t.act JOIN im_user u USING (uid)"
    " WHERE t.lsn = $1",
    "i",
)
IN_LARGE: Final = Statement("SELECT 1 FROM member JOIN grp g USING (cid) WHERE uid = $1 AND g.large LIMIT 1", "i")
LARGE: Final = Statement("SELECT name, acts FROM grp WHERE large")
LAGGING_HERE: Final = Statement(
    "SELECT u.name FROM grp g JOIN member m USING (cid) JOIN im_user u USING (uid)"
    " WHERE g.name = $1 AND u.name = ANY ($2) AND m.active AND g.large AND m.pulled < g.acts",
    "tT",
)
LAGGING_MEMBERS: Final = Statement(
    "SELECT u.name FROM grp g JOIN member m USING (cid) JOIN im_user u USING (uid)"
    " WHERE g.name = $1 AND m.active AND g.large AND m.pulled < g.acts",
    "t",
)
TOLD: Final = Statement(
    "SELECT v.uid, t.cid, t.act, t.lsn, t.former, t.former <> 0"
    " AND EXISTS (SELECT FROM told n WHERE n.former = t.lsn AND n.former > 0 AND n.act <= v.acts)"
    " FROM unnest($1, $2, $3, $4) v (uid, cid, pulled, acts)"
    " JOIN told t ON t.cid = v.cid AND t.act > v.pulled AND t.act <= v.acts ORDER BY v.uid, t.lsn LIMIT $5",
    "IIIIi",
)
PULLED: Final = Statement("SELECT uid, pulled FROM member WHERE cid = $1 AND uid = ANY ($2)", "iI")
TOLD_IN: Final = Statement("SELECT lsn, cid, act FROM told WHERE lsn = ANY ($1)", "I")
TAKEN: Final = Statement("SELECT u.name, m.pulled FROM member m JOIN im_user u USING (uid) WHERE m.cid = $1 AND m.active", "i")
UNTELL: Final = Statement("DELETE FROM told WHERE lsn = ANY ($1)", "I")
PUT_TOLD: Final = Statement("INSERT INTO told (cid, act, lsn, former) SELECT * FROM unnest($1, $2, $3, $4)", "IIII")
GROUP_NAMES: Final = Statement("SELECT cid, name FROM grp WHERE cid = ANY ($1)", "I")
FORMER: Final = Statement("SELECT lsn FROM keyed WHERE sender = $1 AND cid = $2 AND key = $3", "iit")
PUT_PULLED: Final = Statement(
    "UPDATE member m SET pulled = v.pulled FROM unnest($1, $2, $3) v (cid, uid, pulled) WHERE m.cid = v.cid AND m.uid = v.uid",
    "III",
)


class Host(Protocol):
    """Whose batch a group is part of."""

    def catch_up(self, conv: Group, users: Sequence[str]) -> None:
        """See `Conv`."""


class Group(Conv):
    """A group as these tables have it."""

    __slots__ = ("acts", "host", "stored")

    def __init__(
        self,
        cid: int,
        name: str,
        load: Callable[[Conv], MutableMapping[str, Member]] | None = None,
        find: Callable[[Conv, str], Member | None] | None = None,
    ) -> None:
        super().__init__(cid, name, load, find)
        self.acts = 0
        """How much its members were told since it is large."""
        self.stored = 0
        """The same without what this batch tells them."""
        self.host: Host | None = None

    def catch_up(self, users: Sequence[str]) -> None:
        """See `Conv`."""
        if self.large and self.host is not None:
            self.host.catch_up(self, users)


class Told(NamedTuple):
    """What a large group has told: its log row, and that of the message that its `key` replaces.

    That is 0 where it has no `key`, and `NONE` where no message with this one was there before.
    """

    lsn: int
    former: int
    replaced: bool = False
    """Whether it is replaced itself, by what comes behind it."""


class Lag(NamedTuple):
    """What one member has not taken yet: acts after `pulled`, up to `acts`."""

    uid: int
    cid: int
    pulled: int
    acts: int


def taken(
    lags: list[Lag], rows: list[tuple[Any, ...]], page: int
) -> tuple[dict[int, list[tuple[int, Told]]], dict[tuple[int, int], int], set[int]]:
    """What `TOLD` has found, `page` rows at most.

    That is what comes to each user, with its cid; cid and uid of each lag, with how far it is closed; and who has more to take.
    """
    refs: dict[int, list[tuple[int, Told]]] = {lag.uid: [] for lag in lags}
    newest: dict[tuple[int, int], int] = {}
    for uid, cid, act, *told in rows:
        refs[uid].append((cid, Told(*told)))
        newest[uid, cid] = act
    short = rows[-1][0] if len(rows) >= page else 0
    behind = {lag.uid for lag in lags if short and lag.uid >= short}
    closed = {}
    for lag in lags:
        if lag.uid not in behind:
            closed[lag.cid, lag.uid] = lag.acts  # also where retention has taken the newest
        elif (lag.uid, lag.cid) in newest:
            closed[lag.cid, lag.uid] = newest[lag.uid, lag.cid]
    return refs, closed, behind
