"""One run: users and their devices, a server that fails and dies, and steps that are drawn."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

from mqtt_im.bridge.settings import BridgeSettings
from mqtt_im.core.rules import Limits
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite.check import check
from tests.support.store import Crash

from .device import Device
from .ending import compare
from .judge import Broken, Inbox
from .line import Line
from .process import Disk, Key, Process, Session
from .saying import USERS, Saying


class World:
    """To be made and used on an event loop."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        trace: list[str],
        clock: list[float],
        faults: list[Any],
        refused: set[tuple[str, str]],
    ) -> None:
        """`clock` is one number, the time in seconds; in `faults` the server's own are gathered.

        `refused` are user and `id` of what was refused for good, whether anybody was told or not.
        """
        self.seed = seed
        self.random = random = Random(seed)
        self._faults = faults
        self._folder = folder
        self._trace = trace
        self._clock = clock
        self.disk = Disk()
        self._sessions: dict[Key, Session] = {}
        self._refused = refused
        self._limits = Limits(edit_window_s=-1, drop_blocked=random.random() < 0.3)
        self._settings = BridgeSettings(max_inflight=random.choice((2, 8, 64)))
        self._policy = Policy(
            retention_days=random.choice((0, 1)), retention_messages=random.choice((0, 2, 5)), device_expiry_days=0
        )
        self.devices: list[Device] = []
        for user in USERS:
            inbox = Inbox()
            for name in ("tel", "pc", "web")[: random.choice((1, 1, 2, 3))]:
                self.devices.append(Device(user, name, inbox, random, trace.append))
        self.saying = Saying()
        self.counts: Counter[str] = Counter()
        self.process = self._begin()
        self.disk.during = self._meanwhile
        self._step = random

    def _begin(self) -> Process:
        return Process(
            self._folder,
            self.disk,
            self._sessions,
            self._faults,
            lambda: self._clock[0],
            limits=self._limits,
            settings=self._settings,
        )

    # Steps.

    async def step(self, number: int) -> None:
        """The so-manieth step, which is drawn by itself: the others stay as they are where one is left out."""
        self._step = random = Random(f"{self.seed} {number}")
        (act,) = random.choices(self._acts, self._weights)
        self.counts[act.__name__.strip("_")] += 1
        try:
            await asyncio.sleep(0)
            act(self, random)
        except Crash:
            self._dies()
        if self._faults:
            raise Broken(f"the server has met a fault: {self._faults}")

    def _arrives(self, random: Random) -> None:
        for line in self._some_lines(random):
            line.arrive(random.choice((1, 1, 2, 9)))

    def _some_lines(self, random: Random) -> list[Line]:
        lines = [*self.process.live.values()]
        return random.sample(lines, min(len(lines), random.choice((1, 2, 9))))

    def _comes(self, random: Random) -> None:
        for device in random.sample(self.devices, random.choice((1, 2, len(self.devices)))):
            device.receive(random, random.choice((1, 1, 2, 9)))

    def _commits(self, random: Random) -> None:
        self.process.commit()

    def _reads(self, random: Random) -> None:
        for _ in range(random.choice((1, 1, 5))):
            self.process.read()

    def _hears(self, random: Random) -> None:
        for _ in range(random.choice((1, 1, 2, 9))):
            self.process.hear()

    def _meanwhile(self) -> None:
        """While a commit waits for the disk."""
        random = self._step
        if random.random() < 0.3:
            for act in random.choices((World._arrives, World._comes, World._reads, World._hears, World._pubacks), k=2):
                act(self, random)

    def _pubacks(self, random: Random) -> None:
        for device in random.sample(self.devices, random.choice((1, 2, len(self.devices)))):
            if device.line is not None:
                device.acknowledge(random, random.choice((1, 2, 9)))

    def _connects(self, random: Random) -> None:
        device = random.choice(self.devices)
        if device.line is None or random.random() < 0.05:
            device.connect(self.process, random)

    def _breaks(self, random: Random) -> None:
        device = random.choice(self.devices)
        if device.line is not None:
            if random.random() < 0.5:
                device.line.up.clear()
            self._trace.append(f"{device}: breaks off")
            device.lose()
            if random.random() < 0.2:
                device.roll_back(random)

    def _notices(self, random: Random) -> None:
        for line in self._some_lines(random):
            if line.abandoned:
                line.end("lost")

    def _stalls(self, random: Random) -> None:
        for line in self._some_lines(random)[:1]:
            line.stall()

    def _says(self, random: Random) -> None:
        self.saying.something(random.choice(self.devices), random)

    def _talks(self, random: Random) -> None:
        self.saying.to_one([device for device in random.sample(self.devices, 3) if device.line is not None], random)

    def _time(self, random: Random) -> None:
        self._clock[0] += random.choice((0.05, 0.3, 0.3, 1.0, 4.0, 3600.0))

    def _ponders(self, random: Random) -> None:
        self.process.ponders = random.random() < 0.5

    def _disk_fails(self, random: Random) -> None:
        self.disk.failing = random.choice((1, 1, 2, 3, 6, 30))
        self._trace.append(f"DISK: the next {self.disk.failing} attempts fail")

    def _disk_doubts(self, random: Random) -> None:
        self.disk.doubtful = 1
        self._trace.append("DISK: the next commit seems to fail")

    def _disk_heals(self, random: Random) -> None:
        if self.disk.failing:
            self.disk.heal()
            self._trace.append("DISK: as good as new")

    def _is_killed(self, random: Random) -> None:
        if (how := random.choice(("now", "before", "after"))) == "now":
            raise Crash
        self.disk.kill = how

    def _dies(self) -> None:
        owed = self.process.owed
        self._trace.append(f"SERVER: killed, and started again; it has owed {sorted(owed)}")
        self.process.kill()
        self.disk.heal()
        for device in self.devices:
            if device.line is not None:
                device.line.closed = True
        self.process = self._begin()
        state = self.process.store.engine.state
        for device in self.devices:
            if device.judge.registered and state.device(device.user, device.name) is None:
                raise Broken(f"{device} was told that it is registered, and is not")
            if (device.user, device.name) in owed:
                device.is_owed(state.user(device.user).head)

    def _retains(self, random: Random) -> None:
        if not self.disk.failing:
            self._trace.append(f"SERVER: retention {self._policy}")
            self.process.retain(self._policy)

    _acts: Final = (
        _arrives, _comes, _commits, _reads, _hears, _pubacks, _connects, _breaks, _notices, _stalls, _says, _talks, _time,
        _disk_fails, _disk_doubts, _disk_heals, _is_killed, _retains, _ponders,
    )  # fmt: skip
    _weights: Final = (16, 16, 12, 10, 12, 10, 6, 1.2, 1, 0.6, 16, 4, 2, 1, 0.15, 1.5, 0.35, 0.2, 0.6)

    # The beginning and the end.

    async def begin(self) -> None:
        """There are groups, and most devices are connected."""
        self.saying.found(self.devices[0])
        for device in self.devices:
            if self.random.random() < 0.8:
                device.connect(self.process, self.random)
        if self.random.random() < 0.7:
            await self._settle(self.random)

    async def _settle(self, random: Random) -> None:
        """Everything that waits happens, and all that follows from it."""
        quiet = 0
        self.process.ponders = False
        for _ in range(20_000):
            await asyncio.sleep(0)
            busy = self.process.commit() | self.process.hear() | self.process.read()
            for line in list(self.process.live.values()):
                if not line.writable:
                    line.stall()
                    busy = True
                busy |= line.arrive(9)
            for device in self.devices:
                busy |= device.receive(random, 9)
                if device.line is not None and device._to_ack:
                    device.acknowledge(random, 99)
                    busy = busy or not device.rolled
            quiet = 0 if busy else quiet + 1
            if quiet > 12:
                return
            if quiet:
                self._clock[0] += 0.1
        raise Broken("no end")

    async def end(self) -> None:
        """Every device comes and has everything; what is stored is as it must be."""
        self.disk.heal()
        self.disk.during = lambda: None
        self._trace.append("THE END: everything works, and everybody comes")
        await self._settle(self.random)
        for device in self.devices:
            device.lose()
        await self._settle(self.random)
        for _ in range(40):
            for device in self.devices:
                if device.line is None:
                    device.connect(self.process, self.random)
            await self._settle(self.random)
            for device in self.devices:
                if device.rolled and device.line is not None:
                    device.say_hello(self.random)
                elif device.app and device.is_app:
                    device.say_ack(self.random, everything=True)
                elif device.app:
                    device.say_hello(self.random)
            before = [(device.have, device.rolled, device.is_app, len(device.outbox)) for device in self.devices]
            await self._settle(self.random)
            after = [(device.have, device.rolled, device.is_app, len(device.outbox)) for device in self.devices]
            if before == after and not any(device.rolled or device.outbox or device.line is None for device in self.devices):
                break
        else:
            raise Broken(f"no end: {[(str(device), device.have, device.rolled, device.outbox) for device in self.devices]}")
        whole = not (self._policy.removes and self.counts["retains"])
        now = int(self._clock[0] * 1000)
        compare(self.process.store, now, self.devices, self.saying.requests, self._refused, whole=whole)
        self.process.close()
        problems = check(self._folder).problems if self.seed % 4 == 0 else []
        if problems:
            raise Broken(f"store check: {problems}")
