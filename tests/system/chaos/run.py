"""One run: start, noise with kills, silence, the truth, the verdict."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mqtt_im.testing import ServerFailed
from tests.support.im import ImClient, Map
from tests.support.jumps import WallClock
from tests.support.proxy import CLEAR, Fault, Proxy, Way
from tests.support.raw import Closed, Refused

from .checker import Truth, check
from .device import Device
from .servers import KINDS, Servers, started
from .workload import FLOATERS, GROUPS, ROTATING, USERS, Workload, profiles, setup_requests
from .world import HELLOS, World, content_of, happened

FAR_S = 100_000
"""A jump of the server's clock, longer than any time to live."""
SETTLE_S = 90.0
"""How long the devices may need, after the noise, until everything is answered and delivered."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run has shown."""

    seed: int
    faults: list[str]
    kills: int
    troubles: dict[str, int]
    """What was killed, stopped or frozen, and how often."""
    connections: int
    requests: int
    items: int
    repeated: int
    counts: dict[str, int]
    """What else has happened, and how often."""
    trails: list[str]
    """What led to the first faults."""

    def text(self, most: int = 40) -> str:
        """The verdict in words, with so many faults."""
        head = "FAILED" if self.faults else "passed"
        troubles = ", ".join(f"{what}: {count}" for what, count in self.troubles.items())
        summary = (
            f"{head}: seed {self.seed}: {troubles}; {self.connections} connections, {self.requests} requests, "
            f"{self.items} items received, {self.repeated} of them repeats, {len(self.faults)} faults"
        )
        happened = "  " + ", ".join(f"{what}: {count}" for what, count in sorted(self.counts.items()))
        return "\n".join([summary, happened, *(f"  {fault}" for fault in self.faults[:most])])


def run(
    seed: int,
    seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
    kill_every_s: float = 2.5,
    kills: int = 0,
    requests: int = 0,
    nodes: int = 0,
    kinds: Mapping[str, int] | None = None,
    plan: Sequence[str] = (),
    hellos: float = HELLOS,
) -> Verdict:
    """Run for so many seconds, then settle and check; `nodes` on PostgreSQL, else one on SQLite.

    It goes on until there were so many kills, and so many requests as far as a busy machine gets to them in eight times that.
    What befalls them is `plan`, in this order, and then drawn from `kinds` (`servers.KINDS`), by weight.
    The plan follows from the seed; the scheduler adds its own chance.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        wall = WallClock(Path(folder) / "wall")
        with started(Path(folder), nodes, wall, environment, kinds or KINDS, plan) as servers:
            noise = _Run(servers, wall, seed, seconds, kill_every_s, kills, requests)
            noise.world.hellos = hellos
            return asyncio.run(noise.all())


class _Run:
    def __init__(
        self,
        servers: Servers,
        wall: WallClock,
        seed: int,
        seconds: float,
        kill_every_s: float,
        least_kills: int,
        least_requests: int,
    ) -> None:
        self.servers = servers
        self.seconds = seconds
        self.least_kills = least_kills
        self.least_requests = least_requests
        self.kill_every_s = kill_every_s
        self.dice = Random(seed)
        self.troubles = Random(f"{seed} troubles")
        ports = [server.mqtt_port for server in servers.all]
        self.world = World(seed, ports, wall=wall, deliveries=servers.deliveries, refuses=len(servers.all) > 1)
        self.wall = wall
        self.ahead = 0
        self.proxies = [Proxy(port, self.weather) for port in self.world.ports]
        self.devices = [
            Device(self.world, Workload(profile, f"{seed} {profile.name} workload", 0.06), f"{seed} {profile.name}")
            for profile in profiles(self.dice)
        ]

    def weather(self) -> Fault:
        """What happens to the next connection through the proxy."""
        if self.world.calm:
            return CLEAR
        return Fault(self._way(), self._way())

    def _way(self) -> Way:
        dice = self.dice
        return dice.choice(
            (
                Way(),
                Way(),
                Way(cut_after=dice.randrange(1, 30_000)),
                Way(cut_after=dice.randrange(1, 2_000)),
                Way(stall_after=dice.randrange(1, 30_000)),
                Way(bytes_per_s=dice.choice((20_000, 100_000))),
                Way(delay_s=0.02),
                Way(piece=dice.choice((1, 7, 100))),
            )
        )

    async def all(self) -> Verdict:
        for proxy in self.proxies:
            await proxy.start()
        self.world.proxy_ports = [proxy.port for proxy in self.proxies]
        faults: list[str] = []
        lives: list[asyncio.Task[None]] = []
        try:
            await self._setup()
            lives = [asyncio.create_task(device.live(), name=device.profile.name) for device in self.devices]
            await self._noise(lives)
            faults = await self._settle()
            for device in self.devices:
                await device.stop()
            await asyncio.gather(*lives)
            faults += check(self.world, await asyncio.to_thread(self._truth))
            self._explain(faults)
        except (ServerFailed, subprocess.SubprocessError, AssertionError, OSError, Refused, Closed) as error:
            faults += [*self.world.faults, f"the run ended early: {type(error).__name__}: {error}"]
        finally:
            while running := [life for life in lives if not life.done()]:
                for life in running:  # `wait_for` forgets that it was cancelled where it is done in the same turn
                    life.cancel()
                await asyncio.wait(running, timeout=1.0)
            await asyncio.gather(*lives, return_exceptions=True)
            for proxy in self.proxies:
                await proxy.close()
        faults += self.servers.problems()
        streams = self.world.streams.values()
        return Verdict(
            self.world.seed,
            faults,
            self.servers.kills,
            self.servers.troubles,
            self.world.connections,
            self._made,
            sum(stream.received for stream in streams),
            sum(stream.repeated for stream in streams),
            happened(self.world),
            list(self.world.trails.values()),
        )

    def _explain(self, faults: list[str]) -> None:
        """What led to the first faults of devices that were seen only at the end."""
        for device in self.devices:
            name = f"{device.profile.name}: "
            for fault in faults:
                if fault.startswith(name):
                    self.world.explain(device.profile.name, fault.removeprefix(name), device.trail)
                    break

    async def _setup(self) -> None:
        """Groups are made and every device is registered, in a fixed order, before anything goes wrong."""
        self.world.calm = self.world.quiet = True
        await asyncio.to_thread(self._make_groups)
        for device in self.devices:
            life = asyncio.create_task(device.live())
            await asyncio.wait_for(device.registered.wait(), 60.0)
            await device.stop()
            await life
            device.stopped = False
        self.world.calm = self.world.quiet = False

    def _make_groups(self) -> None:
        client = ImClient(self.world.ports[0], USERS[0], "founder").sign_in().listen()
        for op, fields in setup_requests():
            client.must(op, **fields)
        client.must("device.forget", device="nobody")
        client.close()

    async def _noise(self, lives: list[asyncio.Task[None]]) -> None:
        """Kill and restart until the time is over; a device that breaks down ends the run."""
        began = time.monotonic()
        while (
            (passed := time.monotonic() - began) < self.seconds
            or self.servers.kills < self.least_kills
            or (self._made < self.least_requests and passed < 8 * self.seconds)
        ):
            pause = self.dice.uniform(0.4, 1.6) * self.kill_every_s
            await asyncio.sleep(pause / 2)
            self._set_clock(far=True)
            await asyncio.sleep(pause / 2)
            for life in lives:
                if life.done():
                    life.result()
            await asyncio.to_thread(self.servers.trouble, self.troubles, lambda: self._set_clock(far=False))

    @property
    def _made(self) -> int:
        return sum(map(len, self.world.requests.values()))

    def _set_clock(self, far: bool) -> None:
        """The server's wall clock jumps now and then: far while it runs, a little, or far back, while it does not."""
        if self.dice.random() < 0.4:
            jump = self.dice.choice((-FAR_S, -3, 3, FAR_S) if far else (-FAR_S, -3, 3))
            self.ahead += jump
            self.world.counts["clock set forward" if jump > 0 else "clock set back"] += 1
            self.wall.set(self.ahead)

    async def _settle(self) -> list[str]:
        """No more noise: everything is answered, and every device reaches the head of its inbox."""
        self.world.quiet = self.world.calm = True
        for proxy in self.proxies:
            proxy.cut()
        for device in self.devices:
            if device.wire is not None:
                device.wire.abort()
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            if all(device.settled for device in self.devices) and await self._all_at_head() and await self._all_is_known():
                return []
            await asyncio.sleep(0.2)
        heads = await asyncio.to_thread(self._heads)
        return [
            f"{device.profile.name}: did not settle: {len(device.open)} requests open, first {device.open[:1]}; at "
            f"{device.stream.kept} of {heads[device.profile.user]}"
            for device in self.devices
            if device.open or device.stream.kept != heads[device.profile.user]
        ]

    async def _all_at_head(self) -> bool:
        try:
            heads = await asyncio.to_thread(self._heads)
        except (OSError, Refused, Closed):
            return False  # a node that stood still is not there yet
        return all(device.stream.kept >= heads[device.profile.user] for device in self.devices)

    def _heads(self) -> dict[str, int]:
        heads = {}
        for user in USERS:
            auditor = self._auditor(user)
            heads[user] = auditor.must("hello")["head"]
            auditor.close()
        return heads

    async def _all_is_known(self) -> bool:
        """What the devices have acknowledged has been taken in, and written: they are not heard any more, when they have gone."""
        return await asyncio.to_thread(self._stand_at, {device.profile.name: device.stream.kept for device in self.devices})

    def _stand_at(self, kept: Mapping[str, int]) -> bool:
        found = {}
        for user in USERS:
            auditor = self._auditor(user)
            found.update({f"{user}:{each['device']}": each["pos"] for each in auditor.must("devices")["devices"]})
            auditor.close()
        return all(found.get(name, 0) >= pos for name, pos in kept.items())

    def _auditor(self, user: str) -> ImClient:
        """A device that reads and never acknowledges an item; each user's is on a node of its own, if there are so many."""
        return (
            ImClient(self.world.ports[USERS.index(user) % len(self.world.ports)], user, "auditor").sign_in().listen(user_qos=None)
        )

    def _truth(self) -> Truth:
        truth = Truth()
        for user in USERS:
            auditor = self._auditor(user)
            truth.heads[user] = auditor.must("hello")["head"]
            truth.inboxes[user] = {}
            after, more = 0, True
            while more:
                page = auditor.must("sync", after=after, limit=500)
                for item in page["items"]:
                    first = item["from"] if item["op"] == "void" else item["pos"]
                    for pos in range(first, item["pos"] + 1):
                        if pos in truth.inboxes[user]:
                            self.world.fault(user, f"sync shows pos {pos} twice")
                        truth.inboxes[user][pos] = content_of(item)
                    after = item["pos"]
                more = page["more"]
            for conv in self._conversations(auditor, truth):
                truth.histories[user, conv] = [content_of(item) for item in self._history(auditor, conv)]
            auditor.close()
        return truth

    def _conversations(self, auditor: ImClient, truth: Truth) -> list[str]:
        entries = auditor.must("convs", limit=500)["convs"]
        convs = [entry["conv"] for entry in entries]
        truth.marks.update({(auditor.user, entry["conv"]): entry["receipts"] for entry in entries})
        named = [group for group, members in GROUPS.items() if auditor.user in members]
        # A floater who is out at the moment keeps the history; only what others read is compared there.
        assert set(named) <= set(convs), f"convs of {auditor.user}: {convs}"
        return [conv for conv in convs if not (conv == ROTATING and auditor.user in FLOATERS)]

    def _history(self, auditor: ImClient, conv: str) -> list[Map]:
        found: list[Map] = []
        after, more = 0, True
        while more:
            page = auditor.must("history", conv=conv, after=after, limit=500)
            found += page["items"]
            more, after = page["more"], found[-1]["seq"] if found else 0
        return found
