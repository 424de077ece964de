"""One run: start, noise with kills, silence, the truth, the verdict."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mqtt_im.testing import ServerFailed, ServerProcess
from tests.support.im import ImClient, Map
from tests.support.jumps import WallClock
from tests.support.proxy import CLEAR, Fault, Proxy, Way

from .checker import Truth, check
from .device import Device
from .workload import FLOATERS, GROUPS, ROTATING, USERS, Workload, profiles, setup_requests
from .world import World, content_of

FAR_S = 100_000
"""A jump of the server's clock, longer than any time to live."""
SETTLE_S = 90.0
"""How long the devices may need, after the noise, until everything is answered and delivered."""
CONFIG = {
    "limits.requests_per_second": 100_000,
    "limits.max_connections_per_user": 64,
    "limits.failed_logins_per_minute": 100_000,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run has shown."""

    seed: int
    faults: list[str]
    kills: int
    connections: int
    requests: int
    items: int
    repeated: int

    def text(self, most: int = 40) -> str:
        """The verdict in words, with so many faults."""
        head = "FAILED" if self.faults else "passed"
        summary = (
            f"{head}: seed {self.seed}: {self.kills} kills, {self.connections} connections, {self.requests} requests, "
            f"{self.items} items received, {self.repeated} of them repeats, {len(self.faults)} faults"
        )
        return "\n".join([summary, *(f"  {fault}" for fault in self.faults[:most])])


def run(
    seed: int, seconds: float, *, environment: Mapping[str, str] | None = None, kill_every_s: float = 2.5, kills: int = 0
) -> Verdict:
    """Run for so many seconds and at least so many kills, then settle and check.

    The plan follows from the seed; the scheduler adds its own chance.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        wall = WallClock(Path(folder) / "wall")
        path = os.pathsep.join([wall.folder, (environment or {}).get("PYTHONPATH", wall.package)])
        with ServerProcess(CONFIG, environment={**(environment or {}), **wall.environment, "PYTHONPATH": path}) as server:
            return asyncio.run(_Run(server, wall, seed, seconds, kill_every_s, kills).all())


class _Run:
    def __init__(
        self, server: ServerProcess, wall: WallClock, seed: int, seconds: float, kill_every_s: float, least_kills: int
    ) -> None:
        self.server = server
        self.seconds = seconds
        self.least_kills = least_kills
        self.kill_every_s = kill_every_s
        self.dice = Random(seed)
        self.world = World(seed, server.mqtt_port, wall=wall)
        self.wall = wall
        self.ahead = 0
        self.kills = 0
        self.proxy = Proxy(server.mqtt_port, self.weather)
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
        await self.proxy.start()
        self.world.proxy_port = self.proxy.port
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
        except (ServerFailed, subprocess.SubprocessError, AssertionError, OSError) as error:
            faults += [*self.world.faults, f"the run ended early: {type(error).__name__}: {error}"]
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
            await self.proxy.close()
        if "Traceback" in self.server.log():
            faults.append("a traceback in the server's log:\n" + self.server.log().split("Traceback", 1)[1][:2_000])
        faults += self._store_check()
        streams = self.world.streams.values()
        return Verdict(
            self.world.seed,
            faults,
            self.kills,
            self.world.connections,
            sum(map(len, self.world.requests.values())),
            sum(stream.received for stream in streams),
            sum(stream.repeated for stream in streams),
        )

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
        client = ImClient(self.server.mqtt_port, USERS[0], "founder").sign_in().listen()
        for op, fields in setup_requests():
            client.must(op, **fields)
        client.must("device.forget", device="nobody")
        client.close()

    async def _noise(self, lives: list[asyncio.Task[None]]) -> None:
        """Kill and restart until the time is over; a device that breaks down ends the run."""
        until = time.monotonic() + self.seconds
        while time.monotonic() < until or self.kills < self.least_kills:
            pause = self.dice.uniform(0.4, 1.6) * self.kill_every_s
            await asyncio.sleep(pause / 2)
            self._set_clock(far=True)
            await asyncio.sleep(pause / 2)
            for life in lives:
                if life.done():
                    life.result()
            await asyncio.to_thread(self.server.kill)
            self.kills += 1
            self._set_clock(far=False)
            await asyncio.sleep(self.dice.choice((0.0, 0.3)))
            await asyncio.to_thread(self.server.start)

    def _set_clock(self, far: bool) -> None:
        """The server's wall clock jumps now and then: far while it runs, a little, or far back, while it does not."""
        if self.dice.random() < 0.4:
            jump = self.dice.choice((-FAR_S, -3, 3, FAR_S) if far else (-FAR_S, -3, 3))
            self.ahead += jump
            self.wall.set(self.ahead)

    async def _settle(self) -> list[str]:
        """No more noise: everything is answered, and every device reaches the head of its inbox."""
        self.world.quiet = self.world.calm = True
        self.proxy.cut()
        for device in self.devices:
            if device.wire is not None:
                device.wire.abort()
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            if all(device.settled for device in self.devices) and await self._all_at_head():
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
        heads = await asyncio.to_thread(self._heads)
        return all(device.stream.kept >= heads[device.profile.user] for device in self.devices)

    def _heads(self) -> dict[str, int]:
        heads = {}
        for user in USERS:
            auditor = self._auditor(user)
            heads[user] = auditor.must("hello")["head"]
            auditor.close()
        return heads

    def _auditor(self, user: str) -> ImClient:
        """A device that reads and never acknowledges an item."""
        return ImClient(self.server.mqtt_port, user, "auditor").sign_in().listen(user_qos=None)

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

    def _store_check(self) -> list[str]:
        if self.server.running and self.server.stop() != 0:
            return ["the server did not stop with exit code 0"]
        result = self.server.command("store", "check")
        return [f"store check: {result.stdout}{result.stderr}"] if result.returncode else []
