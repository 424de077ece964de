"""Keyboard alone, screen readers, input methods."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Name, Open
from tests.browser.tabs import Tab
from tests.browser.test_files import PICTURE


def findings(page: Page) -> list[tuple[str, str, Any]]:
    """What axe-core finds that keeps people out."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], each["impact"], [node["html"][:200] for node in each["nodes"]]) for each in found]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_has_nothing_to_say(open_tab: Open, name: Name, theme: str, width: int) -> None:
    tab = open_tab(width=width)
    tab.page.evaluate(f"localStorage.setItem('mqtt-im preferences', JSON.stringify({{theme: '{theme}'}}))")
    tab.page.reload()
    expect(tab.at("login-user")).to_be_visible()
    assert findings(tab.page) == []
    alice, bob = name("alice"), name("bob")
    tab.login(alice).start(bob).write("Hello", "https://example.org/")
    tab.shows("Hello", "sent")
    if width > 720:
        tab.message("Hello").hover()
    assert findings(tab.page) == []
    tab.at("conversation-menu").click()
    expect(tab.page.locator("dialog")).to_be_visible()
    assert findings(tab.page) == []
    tab.page.keyboard.press("Escape")
    if width < 720:
        tab.at("back").click()
    tab.at("menu").click()
    assert findings(tab.page) == []
    tab.page.get_by_role("menuitem", name="Settings").click()
    expect(tab.page.get_by_label("Others see what I have read")).to_be_checked()
    assert findings(tab.page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_to_say_of_what_is_seldom_seen(open_tab: Open, name: Name, theme: str) -> None:
    alice, bob = name("alice"), name("bob")
    tab, other = open_tab(alice), open_tab(bob)
    tab.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    other.start(alice).at("conversation-menu").click()
    other.page.get_by_role("button", name="Block", exact=True).click()
    tab.start(bob).at("attach").set_input_files([PICTURE, FilePayload(name="a.txt", mimeType="text/plain", buffer=b"x")])
    expect(tab.page.locator(".about img")).to_be_visible()
    assert findings(tab.page) == []
    tab.write("not for you")
    tab.shows("not for you", "failed")
    assert findings(tab.page) == []
    tab.page.locator(".picture").click()
    expect(tab.page.locator("dialog.lightbox img")).to_be_visible()
    assert findings(tab.page) == []
    tab.page.keyboard.press("Escape")
    tab.at("new-group").click()
    tab.at("group-name").fill("A group")
    tab.at("group-create").click()
    expect(tab.page.locator(".chat-title")).to_contain_text("A group")
    tab.write("to all")
    tab.message("to all").hover()
    tab.message("to all").get_by_role("button", name="React").click()
    assert findings(tab.page) == []
    tab.page.keyboard.press("Escape")
    tab.page.context.set_offline(True)
    tab.connection("offline")
    tab.at("composer").fill("@")
    expect(tab.page.locator(".names .option")).to_have_count(1)
    assert findings(tab.page) == []


def test_nothing_moves_where_no_motion_is_wanted(open_tab: Open, name: Name) -> None:
    tab = open_tab()
    tab.page.emulate_media(reduced_motion="reduce")
    tab.login(name("alice")).start(name("bob")).write("still")
    tab.shows("still", "sent")
    moving = """all => all.map((each) => getComputedStyle(each)).filter(({ animationName, transitionDuration }) =>
        animationName !== "none" || transitionDuration !== "0s").length"""
    assert tab.page.locator("*").evaluate_all(moving) == 0


def focus(tab: Tab, test_id: str, key: str = "Tab", most: int = 30) -> None:
    """Press Tab until the element with this handle has the focus."""
    for _ in range(most):
        if tab.page.evaluate("document.activeElement?.dataset.testid ?? ''") == test_id:
            return
        tab.page.keyboard.press(key)
    raise AssertionError(f"the keyboard does not reach {test_id}")


def test_the_keyboard_is_enough(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    other = open_tab(bob)
    tab = open_tab()
    keys = tab.page.keyboard
    focus(tab, "login-user")
    keys.type(alice)
    keys.press("Enter")
    tab.online()
    focus(tab, "new-conversation")
    keys.press("Enter")
    focus(tab, "new-conversation-name")
    keys.type(bob)
    keys.press("Enter")
    focus(tab, "composer")
    keys.type("first line")
    keys.press("Shift+Enter")
    keys.type("second line")
    keys.press("Enter")
    tab.shows("first line\nsecond line", "delivered")
    other.open_conversation(f"{alice}:{bob}").write("an answer")
    tab.shows("an answer", "received")
    keys.type("oops")
    keys.press("Enter")
    tab.shows("oops", "read")
    keys.press("ArrowUp")  # in an empty composer: edits the last own message
    expect(tab.at("composer")).to_have_value("oops")
    keys.type("y")
    keys.press("Enter")
    other.shows("oopsy", "received")
    # To the timeline, up to the answer, react and reply.
    for _ in range(10):
        keys.press("Shift+Tab")
        if tab.page.evaluate("document.activeElement?.getAttribute('role')") == "log":
            break
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    assert tab.page.evaluate("document.activeElement.dataset.seq") == "2"
    keys.press("Enter")
    keys.press("ArrowDown")
    keys.press("Enter")  # React
    keys.press("Enter")  # the first of them
    expect(other.page.locator(".reaction")).to_have_text("👍 1")
    tab.page.locator('[data-seq="2"]').focus()
    keys.press("r")
    keys.type("a reply")
    keys.press("Enter")
    expect(other.message("a reply").locator(".quote")).to_contain_text("an answer")
    focus(tab, "conversation", "Shift+Tab")
    focus(tab, "logout")
    keys.press("Enter")
    expect(tab.at("login-user")).to_be_focused()


def test_enter_of_an_input_method_does_not_send(open_tab: Open, name: Name) -> None:
    tab = open_tab(name("alice")).start(name("bob"))
    composer = tab.at("composer")
    composer.fill("你好")
    for init in ("isComposing: true", "keyCode: 229"):
        composer.evaluate(f"input => input.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, {init}}}))")
    expect(composer).to_have_value("你好")
    composer.press("Enter")
    tab.shows("你好", "sent")


def test_right_to_left_and_long_words(open_tab: Open, name: Name) -> None:
    tab = open_tab(name("alice"), width=360).start(name("bob"))
    tab.write("مرحبا بالعالم", "x" * 3000, "𓀀" * 50)
    tab.shows("مرحبا بالعالم", "sent")
    assert tab.message("مرحبا بالعالم").locator(".body").evaluate("element => getComputedStyle(element).direction") == "rtl"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.page.locator(".scroller").evaluate("element => element.scrollWidth <= element.clientWidth")
