"""Logins that another system is asked about: who waits for it holds up nobody from elsewhere."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mqtt_im.bridge.logins import http as http_logins
from mqtt_im.bridge.logins.http import HttpLogins, NoAnswer
from mqtt_im.bridge.logins.shared_places import SharedPlaces
from mqtt_im.config import HttpLoginConfig

PATIENCE_S = 60.0
FAR, NEAR = "192.0.2.1", "198.51.100.7"


def test_logins_that_are_not_answered_hold_up_nobody_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def run(attempt: http_logins._Attempt) -> bool:
        if b"slow" in attempt._body:
            assert answer.wait(PATIENCE_S)
        return True

    monkeypatch.setattr(http_logins._Attempt, "run", run)

    async def scenario() -> None:
        logins = HttpLogins(HttpLoginConfig(url="http://127.0.0.1:9/", timeout_s=PATIENCE_S))

        async def allows(user: str, address: str) -> bool:
            return await logins.allows(user, "x", "c", address, "mqtt")

        slow = [asyncio.create_task(allows(f"slow{number}", FAR)) for number in range(5 * http_logins.MAX_AT_ONCE)]
        slow += [asyncio.create_task(allows("slow", "127.0.0.1")) for _ in range(5 * http_logins.MAX_AT_ONCE)]
        try:
            await asyncio.sleep(0)
            for number in range(100):
                assert await allows(f"user{number}", NEAR)
            assert await allows("user", "127.0.0.1")
            assert not any(task.done() for task in slow)
        finally:
            answer.set()
        assert all(await asyncio.gather(*slow))
        logins.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_who_waits_in_vain_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_logins._Attempt, "run", lambda _: True)

    async def scenario() -> None:
        logins = HttpLogins(HttpLoginConfig(url="http://127.0.0.1:9/", timeout_s=0.01))
        logins._places = SharedPlaces(1)
        async with logins._places.place("other"):
            with pytest.raises(NoAnswer):
                await logins.allows("user", "x", "c", NEAR, "mqtt")
        logins._config = HttpLoginConfig(url="http://127.0.0.1:9/", timeout_s=PATIENCE_S)  # however slow the machine is
        assert await logins.allows("user", "x", "c", NEAR, "mqtt"), "nothing is left of who went"
        logins.close()

    asyncio.run(scenario())


def test_parties_take_turns_and_none_has_all() -> None:
    async def scenario() -> None:
        places, came = SharedPlaces(8), list[str]()
        go_on = asyncio.Event()

        async def stay(party: str) -> None:
            async with places.place(party):
                came.append(party)
                await go_on.wait()

        tasks = [asyncio.create_task(stay("many")) for _ in range(20)]
        await asyncio.sleep(0)
        assert came == ["many"] * 6
        tasks += [asyncio.create_task(stay(party)) for party in ("a", "b", "c", "a", "b", "c")]
        await asyncio.sleep(0)
        assert came[6:] == ["a", "b"]
        gone = [tasks.pop(), tasks.pop(6)]  # the last of c's, and one of those of many who wait
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        go_on.set()
        await asyncio.gather(*tasks)
        assert came[8:].index("c") < 4, "in its turn, and not behind all who came before"
        assert sorted(came) == ["a"] * 2 + ["b"] * 2 + ["c"] + ["many"] * 19
        async with asyncio.TaskGroup() as group:  # all places are free again
            for party in "stuvwxyz":
                group.create_task(stay(party))

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
