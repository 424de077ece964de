"""Large groups: what they tell their members comes into the inboxes of those who are here, a few at a time.

A large group tells all its members by one row (`store.postgres.large`). Each takes it into the inbox when a node has that member
online, or when it comes; this is what makes those who are here do so, when the group has grown here or at another node. One job
takes a slice of them, and the next one stands in line when that is done, so nobody waits for a whole group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from mqtt_im.core.records import AMENDMENTS
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.jobs.delivering import AttachJob, PullJob

from .seam import Bridge

SLICE: Final = 200
"""Members whose inboxes one job writes: as many as of the largest group of which a message is written into them at once."""
AT_ONCE: Final = 500
"""Groups that one sweep looks after; it goes on with the others at the next one."""
MANY: Final = 5_000
"""Where more are here than that, the members of a group are asked for rather than who of those here is one."""


class Pulling:
    """The part of one bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._taken: dict[str, int] = {}
        """Large groups, and up to which number those who are here have taken what they tell, as far as this has looked."""
        self._behind: set[str] = set()
        """Users here for whom that went wrong."""
        self._growing: dict[str, bool] = {}
        """Large groups whose members here are taking what it has told; whether there is more to look for."""

    def grown(self, group: str) -> None:
        """The group has told its members something: those who are here take it, a moment later."""
        if group in self._growing:
            self._growing[group] = True
        else:
            self._growing[group] = False
            self._bridge.background(self._take(group))

    async def _take(self, group: str) -> None:
        """Once, and once more for all that has come meanwhile: however fast a group grows, nobody else waits for that."""
        try:
            while True:
                self._growing[group] = False
                acts, lagging, shown = await self._bridge.ledger.call(lambda engine: self._members_here(engine, group))
                for user in shown:
                    self._look(user)
                await self.pull(lagging, group)
                self._taken[group] = acts
                if not self._growing[group]:
                    return
        except Refusal:
            return  # the store is in trouble; when it is not, the sweep finds who lags
        finally:
            del self._growing[group]

    def _members_here(self, engine: Any, group: str) -> tuple[int, list[str], list[str]]:
        """How much the group has told, who here has not taken it all, and of one that is not large, whose inboxes have grown."""
        audience = self._bridge.audience
        here = {*audience.online, *audience.watching}
        conv = engine.state.conv(group)
        if conv is None or not conv.large:
            return 0, [], engine.state.present(group, list(here))
        if len(here) > MANY:
            return conv.acts, [user for user in engine.state.lagging_members(group) if user in here], []
        return conv.acts, engine.state.lagging(group, list(here)), []

    async def pull(self, users: Sequence[str], turn: str) -> None:
        """These users have everything that large groups have told by now. Raises `Refusal`."""
        waiting = list(users)
        while waiting:
            part, waiting = waiting[:SLICE], waiting[SLICE:]
            job = await self._bridge.ledger.ask(partial(PullJob, part, turn), self._tell)
            waiting += job.more

    async def whole(self, user: str) -> None:
        """The user's inbox has everything that large groups have told by now. Raises `Refusal`."""
        if not self._bridge.alone:
            await self.pull([user], user)

    def before(self, user: str) -> None:
        """What the user asks next to read finds a page more of that, if there is any."""
        if not self._bridge.alone:
            self._bridge.ledger.submit(PullJob([user], user, self._tell))

    def go_on(self, user: str) -> None:
        """The same, a moment later, as far as the store lets it."""
        self._bridge.background(self._go_on(user))

    async def _go_on(self, user: str) -> None:
        try:
            await self.whole(user)
        except Refusal:
            self._behind.add(user)

    def _tell(self, job: PullJob) -> None:
        """Bring what has come to those who are connected."""
        bridge = self._bridge
        users: dict[str, None] = {}
        for commit in job.told:
            users.update((user, None) for user, _ in commit.to)
            if isinstance(commit.record, AMENDMENTS):
                for user, _ in commit.to:
                    for channel in bridge.telling.channels_of(user):
                        if channel.delivery is not None:
                            channel.delivery.amended()
            bridge.telling.live(commit)
        self._tell_elsewhere(users)

    def attached(self, user: str, head: int, job: AttachJob) -> None:
        """A device has come, and with it some of what the user had not taken."""
        if job.pulled:
            self.came(user, head)
        if job.more:
            self.go_on(user)

    def came(self, user: str, head: int) -> None:
        """The user's inbox has grown up to `head`, where a device of the user has come: the others are to know."""
        for channel in self._bridge.telling.channels_of(user):
            delivery = channel.delivery
            if delivery is not None and delivery.head < head:
                delivery.live(head, None)
                self._bridge.pump.now(channel)
        self._tell_elsewhere([user])

    def _tell_elsewhere(self, users: Iterable[str]) -> None:
        if self._bridge.neighbourhood is not None:
            self._bridge.neighbourhood.grown_there(users)

    def _look(self, user: str) -> None:
        for channel in self._bridge.telling.channels_of(user):
            self._bridge.pump.look(channel)

    async def sweep(self) -> None:
        """Of what large groups have told, also where that was not heard here, those who are here take all. Raises `Refusal`."""
        told: dict[str, int] = await self._bridge.ledger.call(lambda engine: engine.state.large_groups())  # type: ignore[attr-defined]
        if len(self._taken) > len(told):
            self._taken = {name: acts for name, acts in self._taken.items() if name in told}
        for group in list(islice((name for name, acts in told.items() if self._taken.get(name) != acts), AT_ONCE)):
            self.grown(group)
        for user in list(self._behind):
            self._behind.discard(user)
            self.go_on(user)
