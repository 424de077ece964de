"""Notifications: of the open page, and of the service worker that a push service wakes.

A test reaches no push service: the browser is handed what one would bring.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import CDPSession, Page, expect

from tests.browser.conftest import Name, Open
from tests.browser.tabs import Tab

SHOWN = """async () => {
    const registration = await navigator.serviceWorker.getRegistration("/");
    return (await registration.getNotifications()).map(({ title, body, tag, data }) => ({ title, body, tag, data }));
}"""


def shown(page: Page, count: int, again: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """The notifications on the screen, as soon as there are so many.

    `again` does now and then what brings them: nothing says that a browser has taken a push, and one without a screen may have
    dropped all that it had shown.
    """
    for number in range(1, 600):
        if number % 50 == 0:
            again()
        found: list[dict[str, Any]] = page.evaluate(SHOWN)
        if len(found) == count:
            return found
        page.wait_for_timeout(100)
    raise AssertionError(found)


class PushLine:
    """What brings pushes to a browser, without a push service."""

    def __init__(self, tab: Tab) -> None:
        self._session: CDPSession = tab.page.context.new_cdp_session(tab.page)
        self._origin = tab.url.rstrip("/")
        self._found: list[str] = []
        self._brought: list[str] = []
        self._session.on("ServiceWorker.workerRegistrationUpdated", self._updated)
        self._session.send("ServiceWorker.enable")
        while not self._found:
            tab.page.wait_for_timeout(50)

    def _updated(self, told: dict[str, Any]) -> None:
        self._found += [each["registrationId"] for each in told["registrations"] if each["scopeURL"].startswith(self._origin)]

    def bring(self, content: Any) -> None:
        self._brought.append(content if isinstance(content, str) else json.dumps(content))
        self._deliver(self._brought[-1])

    def again(self) -> None:
        """All of it is brought once more; what is still there is replaced by it."""
        for data in self._brought:
            self._deliver(data)

    def _deliver(self, data: str) -> None:
        self._session.send(
            "ServiceWorker.deliverPushMessage", {"origin": self._origin, "registrationId": self._found[-1], "data": data}
        )


def test_a_push_is_shown_while_no_page_is_in_view(open_tab: Open, name: Name, url: str) -> None:
    alice = name("alice")
    tab = open_tab(alice)
    tab.worker()
    tab.page.context.grant_permissions(["notifications"], origin=url.rstrip("/"))
    line = PushLine(tab)
    push = {
        "id": "1",
        "user": alice,
        "count": 2,
        "conversations": [{"conv": "alice:bob", "from": "bob", "body": "<b>hello</b>", "count": 2}],
    }
    tab.page.bring_to_front()
    line.bring(push)
    tab.page.wait_for_timeout(500)
    assert tab.page.evaluate(SHOWN) == []  # the page that is in view shows it by itself
    tab.page.goto(url + "health/live")
    line = PushLine(tab)
    line.bring(push)
    (first,) = shown(tab.page, 1, line.again)
    assert first == {"title": "bob (2)", "body": "<b>hello</b>", "tag": "alice:bob", "data": {"conv": "alice:bob"}}
    group = {"conv": "#ops", "name": "Night shift", "from": "carol", "body": "here", "count": 1}
    line.bring({"id": "2", "user": alice, "count": 1, "conversations": [group]})
    second = next(each for each in shown(tab.page, 2, line.again) if each["tag"] == "#ops")
    assert (second["title"], second["body"]) == ("Night shift", "carol: here")
    for odd in (
        "",
        "no JSON",
        "[]",
        "null",
        '{"conversations": 7}',
        {"conversations": [{"conv": 7, "from": {}, "body": {"a": 1}}]},
    ):
        line.bring(odd)
    odd_one = next(each for each in shown(tab.page, 3, line.again) if each["tag"] == "mqtt-im")
    assert (odd_one["title"], odd_one["body"]) == ("MQTT-IM", "✉")  # a browser wants to see something for each push


ASK = "() => { Notification.requestPermission = () => new Promise((answer) => { window.allow = () => answer('granted'); }); }"
"""The browser asks until `allow()`."""
HIDE = "Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' })"


def switch_on(tab: Tab) -> None:
    tab.at("menu").click()
    tab.page.get_by_role("menuitem", name="Settings").click()
    tab.page.get_by_label("Notifications on this device").click()


def test_the_open_page_notifies_while_it_is_not_in_view(open_tab: Open, name: Name, url: str) -> None:
    """What comes while the browser still asks whether it may is told when it may."""
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.worker()
    one.page.context.grant_permissions(["notifications"], origin=url.rstrip("/"))
    one.page.evaluate(ASK)
    switch_on(one)
    one.page.keyboard.press("Escape")
    one.page.evaluate(HIDE)
    other.start(alice).write("are you there?")
    expect(one.page).to_have_title("(1) MQTT-IM")
    one.page.evaluate("allow()")
    (first,) = shown(one.page, 1)
    assert (first["title"], first["body"]) == (bob, "are you there?")


def test_notifications_that_are_switched_on_in_another_tab(open_tab: Open, name: Name, url: str) -> None:
    """One tab of a browser tells, the one that has the connection, wherever they were switched on."""
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.worker()
    one.page.context.grant_permissions(["notifications"], origin=url.rstrip("/"))
    second = Tab.open(one.page.context, url).online()
    switch_on(second)
    one.page.wait_for_function("localStorage.getItem('mqtt-im preferences')?.includes('\"notify\":true')")
    for tab in (one, second):
        tab.page.evaluate(HIDE)
    other.start(alice).write("are you there?")
    (first,) = shown(one.page, 1)
    assert (first["title"], first["body"]) == (bob, "are you there?")
