"""A real Chromium, Debian's, against a real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright

from mqtt_im.testing import ServerProcess
from tests.browser.tabs import ARGUMENTS, CHROMIUM, Tab

Open = Callable[..., Tab]
Name = Callable[[str], str]


@pytest.fixture
def name() -> Name:
    """Names that no other test uses, the same one for the same word within a test."""
    token = uuid.uuid4().hex[:8]
    return lambda word: f"{word}-{token}"


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    """Not for the whole session: it runs an event loop in this thread, which other tests can't have."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield started
    started.close()


@pytest.fixture(scope="package")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as started:
        yield started


@pytest.fixture
def url(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.http_port}/"


@pytest.fixture
def open_tab(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page in a browser profile of its own, as this user where one is named; nothing of it may have raised."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_one(user: str | None = None, *, width: int = 1280, height: int = 800, locale: str = "en-GB") -> Tab:
        context = browser.new_context(viewport={"width": width, "height": height}, locale=locale)
        contexts.append(context)
        tab = Tab.open(context, url)
        tabs.append(tab)
        return tab if user is None else tab.login(user)

    yield open_one
    errors = [error for tab in tabs for error in tab.errors]
    for context in contexts:
        context.close()
    assert not errors, errors
