"""The web chat in Chromium: what the page weighs, and how fast and large it is for somebody who has much.

Alice has 1,000 conversations, one of them with 10,000 messages, and a browser that was away for 100,000 messages. Times are
those of the page itself (`performance.now()`, from the start of the navigation), memory comes over Chromium's DevTools
protocol. Browser and server have all cores: what is measured is one user, not a crowd.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.report import Row, Target
from bench.seed import publish_all
from bench.servers import OURS, running
from mqtt_im.http.chat import release
from mqtt_im.load.bodies import bodies
from mqtt_im.load.broker import Broker

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, CDPSession, Page, Playwright

CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
_ME, _TALKER = "alice", "talker"
_LONG = f"{_ME}:{_TALKER}"
_LONG_MESSAGES = 10_000
_LAST = "the last of all"
_THROTTLE = 4
_SCROLL_PX, _SCROLL_PX_S = 60_000, 6_000
_WAIT_S = 60.0
_MIB = 1024 * 1024

_WATCH = """() => {
    const checks = {
        listed: () => document.querySelector('[data-testid="conversation"]'),
        usable: () => document.querySelector('[data-testid="connection"]')?.dataset.state === "online"
            && document.querySelector('.conversations')?.firstElementChild?.textContent.includes("LAST"),
        message: () => document.querySelector('[data-testid="message"]'),
    };
    window.figures = {};
    const look = () => {
        for (const name of Object.keys(checks)) {
            if (!checks[name]()) continue;
            delete checks[name];
            requestAnimationFrame(() => setTimeout(() => { window.figures[name] = performance.now(); })); // painted
        }
        if (Object.keys(checks).length) requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}""".replace("LAST", _LAST)

_FRAMES = """() => {
    window.frames_ms = [];
    let before = performance.now();
    const look = (now) => {
        if (!window.frames_ms) return;
        window.frames_ms.push(now - before);
        before = now;
        requestAnimationFrame(look);
    };
    requestAnimationFrame((now) => { before = now; requestAnimationFrame(look); });
}"""


async def compare(conversations: int, behind: int) -> list[Row]:
    """Figures of the page for a user with so many conversations, whose browser is so many messages behind."""
    rows = [Row("the page with all its files, gzip", "KiB", {OURS: release().weight / 1024}, (Target(200),))]
    with _all_cores(), tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder, running(OURS, pinned=False) as server:
        profile = Path(folder) / "profile"
        url = f"http://{server.host}:{server.http_port}/"
        await asyncio.to_thread(_log_in, profile, url)
        await _fill(server, conversations, behind)
        return rows + await asyncio.to_thread(_measure, profile, url, conversations, behind)


@contextmanager
def _all_cores() -> Iterator[None]:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


async def _fill(broker: Broker, conversations: int, behind: int) -> None:
    """Everybody writes to alice: one 10,000 times, the others an equal share; one message is the last."""
    texts = [body.decode() for body in bodies()]
    names = [f"friend{number:04d}" for number in range(conversations - 1)]
    share, rest = divmod(behind - _LONG_MESSAGES - 1, len(names))
    counts = {name: share + (number < rest) for number, name in enumerate(names)}
    for wave in ({**counts, _TALKER: _LONG_MESSAGES}, {_TALKER: 1}):
        sendings = {
            user: [(_ME, texts[n % len(texts)] if count > 1 else _LAST) for n in range(count)] for user, count in wave.items()
        }
        await publish_all(broker, sendings)


def _log_in(profile: Path, url: str) -> None:
    """A browser that has seen the server once, and was closed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = _open(playwright, profile)
        page = context.pages[0]
        page.goto(url)
        page.get_by_test_id("login-user").fill(_ME)
        page.get_by_test_id("login-submit").click()
        page.locator('[data-testid="connection"][data-state="online"]').wait_for()
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.wait_for_timeout(1_000)  # the device's place is acknowledged
        context.close()


def _open(playwright: Playwright, profile: Path) -> BrowserContext:
    return playwright.chromium.launch_persistent_context(
        str(profile), executable_path=CHROMIUM, args=_ARGUMENTS, viewport={"width": 1280, "height": 800}
    )


def _measure(profile: Path, url: str, conversations: int, behind: int) -> list[Row]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = _open(playwright, profile)
        context.add_init_script(f"({_WATCH})()")
        page = context.pages[0]
        page.set_default_timeout(_WAIT_S * 1000)
        session = context.new_cdp_session(page)
        session.send("Performance.enable")
        rows = _opening(page, url, conversations, behind)
        rows += _memory(page, session, "after opening")
        rows += _scrolling(page, session)
        rows += _memory(page, session, "after scrolling")
        rows += _throttled(page, session)
        context.close()
        return rows


def _until(page: Page, expression: str) -> None:
    """`wait_for_function` would need `unsafe-eval`."""
    deadline = time.monotonic() + _WAIT_S
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {expression}")
        time.sleep(0.05)


def _figure(page: Page, name: str) -> float:
    _until(page, f"!!window.figures?.{name}")
    return float(page.evaluate(f"window.figures.{name}"))


def _opening(page: Page, url: str, conversations: int, behind: int) -> list[Row]:
    page.goto(url)
    usable = _figure(page, "usable") / 1000
    _until(page, f"document.querySelectorAll('[data-testid=\"conversation\"]').length >= {conversations}")
    all_listed = float(page.evaluate("performance.now()")) / 1000
    return [
        Row(f"a browser that is {behind:,} messages behind: usable", "s", {OURS: usable}, (Target(2),)),
        Row("the same: every conversation listed", "s", {OURS: all_listed}),
    ]


def _scrolling(page: Page, session: CDPSession) -> list[Row]:
    page.locator(f'[data-testid="conversation"][data-conv="{_LONG}"]').click()
    page.get_by_test_id("message").last.wait_for()
    page.wait_for_timeout(1_000)
    first = int(page.evaluate("document.querySelector('[data-seq]').dataset.seq"))
    box = page.locator(".scroller").bounding_box()
    assert box is not None
    page.evaluate(_FRAMES)
    before = _cpu_s()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session.send(
        "Input.synthesizeScrollGesture", {**place, "yDistance": _SCROLL_PX, "speed": _SCROLL_PX_S, "gestureSourceType": "mouse"}
    )
    frames: list[float] = page.evaluate("(() => { const all = window.frames_ms; window.frames_ms = null; return all; })()")
    cpu = _cpu_s() - before
    reached = int(page.evaluate("document.querySelector('[data-seq]').dataset.seq"))
    frames.sort()
    return [
        Row(
            "scrolling up in 10,000 messages: frames a second",
            "1/s",
            {OURS: 1000 * len(frames) / sum(frames)},
            (Target(55, more_is_better=True),),
        ),
        Row("the same: CPU of the renderer for a frame", "ms", {OURS: 1000 * cpu / len(frames)}, (Target(16.7, 8),)),
        Row("the same: 95 % of the frames within", "ms", {OURS: frames[int(len(frames) * 0.95)]}, (Target(34, 17.5),)),
        Row("the same: the longest frame", "ms", {OURS: frames[-1]}),
        Row("the same: messages scrolled past", "", {OURS: first - reached}),
    ]


def _throttled(page: Page, session: CDPSession) -> list[Row]:
    """The page is opened again with a conversation, from what the browser has; a slow CPU, as that of a phone five years old."""
    times, cpus = [], []
    for _ in range(3):
        before = _cpu_s()
        page.reload(wait_until="commit")
        _figure(page, "message")
        cpus.append(_cpu_s() - before)
        page.wait_for_timeout(1_000)
    session.send("Emulation.setCPUThrottlingRate", {"rate": _THROTTLE})
    for _ in range(3):
        page.reload(wait_until="commit")
        times.append(_figure(page, "message"))
    return [
        Row(
            "opened again: CPU of the renderer until the first message",
            "s",
            {OURS: statistics.median(cpus)},
            (Target(1 / _THROTTLE),),
        ),
        Row(
            f"opened again, the CPU {_THROTTLE} times slower: first message",
            "s",
            {OURS: statistics.median(times) / 1000},
            (Target(1),),
        ),
    ]


def _memory(page: Page, session: CDPSession, when: str) -> list[Row]:
    session.send("HeapProfiler.collectGarbage")
    page.wait_for_timeout(500)
    metrics: dict[str, Any] = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    info = _renderer().memory_full_info()
    return [
        Row(f"JavaScript heap {when}", "MiB", {OURS: metrics["JSHeapUsedSize"] / _MIB}, (Target(50),)),
        Row(f"memory of the renderer alone (USS) {when}", "MiB", {OURS: info.uss / _MIB}, (Target(150),)),
        Row(f"resident with shared pages (RSS) {when}", "MiB", {OURS: info.rss / _MIB}),
    ]


def _cpu_s() -> float:
    spent = _renderer().cpu_times()
    return spent.user + spent.system


def _renderer() -> psutil.Process:
    """The largest renderer of this browser: that of the page."""
    found = [process for process in psutil.Process().children(recursive=True) if "--type=renderer" in " ".join(process.cmdline())]
    return max(found, key=lambda process: process.memory_info().rss)
