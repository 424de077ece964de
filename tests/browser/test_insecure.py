"""Over plain HTTP from another machine a browser has no service worker, no Web Locks, no cache: the chat works all the same."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Name, Open
from tests.browser.tabs import Tab


@pytest.fixture
def url(server: ServerProcess) -> str:
    return f"http://chat.test:{server.http_port}/"


def test_tabs_share_one_device_without_web_locks(open_tab: Open, name: Name, url: str) -> None:
    alice, bob = name("alice"), name("bob")
    one, peer = open_tab(alice), open_tab(bob)
    assert one.page.evaluate("[isSecureContext, !!navigator.locks, !!navigator.serviceWorker, !!window.caches]") == [False] * 4
    one.start(bob).write("zero")
    two = Tab.open(one.page.context, url).online()
    two.open_conversation(f"{alice}:{bob}")
    one.write("from the first")
    two.shows("from the first", "delivered")
    two.write("from the second")
    one.shows("from the second", "delivered")
    two.at("menu").click()
    two.page.get_by_role("menuitem", name="Devices").click()
    expect(two.page.locator(".members li")).to_have_count(1)
    two.page.keyboard.press("Escape")
    one.page.close()  # it had the connection
    two.write("from the one that is left")
    two.shows("from the one that is left", "delivered")
    peer.open_conversation(f"{alice}:{bob}").has("zero", "from the first", "from the second", "from the one that is left")
    two.page.reload()
    two.online().has("zero", "from the first", "from the second", "from the one that is left")
    two.at("logout").click()
    expect(two.at("login-user")).to_be_visible()
    assert two.page.evaluate("indexedDB.databases().then((all) => all.map(({ name }) => name))") == ["mqtt-im"]
    assert not two.errors
