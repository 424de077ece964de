"""Two and three people write to each other."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Name, Open

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "javascript:window.hacked=1",
    "<a href='javascript:window.hacked=1'>x</a>",
    "<svg/onload=window.hacked=1>",
    "</p></article><style>*{display:none}</style>",
    "{{7*7}} ${7*7} &lt;b&gt;",
    "\u202egnp.exe",
]


def test_two_browsers_chat(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("Hello Bob")
    one.shows("Hello Bob", "delivered")
    conversation = other.conversation(f"{alice}:{bob}")
    expect(conversation.get_by_test_id("unread")).to_have_text("1")
    expect(conversation).to_contain_text("Hello Bob")
    conversation.click()
    one.shows("Hello Bob", "read")
    expect(conversation.get_by_test_id("unread")).to_have_count(0)
    other.at("composer").press_sequentially("Hi")
    expect(one.at("typing")).to_contain_text(bob)
    other.at("composer").press("Enter")
    one.shows("Hi", "received")
    expect(one.at("typing")).to_have_count(0)
    other.shows("Hi", "read")
    assert one.seqs() == other.seqs() == ["1", "2"]
    expect(one.page.locator(".chat-title")).to_contain_text("online")
    one.page.reload()
    one.online()
    one.has("Hello Bob", "Hi")


def test_three_in_a_group(open_tab: Open, name: Name) -> None:
    names = [name("alice"), name("bob"), name("carol")]
    tabs = [open_tab(user) for user in names]
    tabs[0].at("new-group").click()
    tabs[0].at("group-name").fill("The three of us")
    tabs[0].at("group-members").fill(f"{names[1]} {names[2]}")
    tabs[0].at("group-create").click()
    expect(tabs[0].at("composer")).to_be_visible()
    for tab in tabs[1:]:
        tab.page.get_by_test_id("conversation").filter(has_text="The three of us").click()
    for number, tab in enumerate(tabs):
        tab.write(f"message {number}")
        for each in tabs:
            expect(each.message(f"message {number}")).to_be_visible()
    for tab in tabs:
        tab.has("message 0", "message 1", "message 2")
    tabs[0].shows("message 0", "read")
    assert tabs[0].seqs() == tabs[1].seqs() == tabs[2].seqs()


def test_bodies_are_never_html(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write(*HOSTILE, "see https://example.org/a(b)?c=<d>, ok")
    other.open_conversation(f"{alice}:{bob}")
    expect(other.at("message")).to_have_count(len(HOSTILE) + 1)
    for tab in (one, other):
        assert tab.bodies()[: len(HOSTILE)] == HOSTILE
        assert tab.page.evaluate("window.hacked") is None
        links = tab.page.locator(".body a")
        expect(links).to_have_count(1)
        expect(links).to_have_attribute("href", "https://example.org/a(b)?c=")
        expect(links).to_have_attribute("rel", re.compile("noopener"))


def test_a_narrow_window_shows_one_of_the_two(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    tab = open_tab(alice, width=390, height=780)
    tab.start(bob)
    expect(tab.at("new-conversation")).not_to_be_visible()
    tab.write("from a phone")
    tab.at("back").click()
    expect(tab.at("composer")).not_to_be_visible()
    tab.open_conversation(f"{alice}:{bob}")
    tab.page.go_back()
    expect(tab.at("new-conversation")).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_logout_leaves_nothing(open_tab: Open, name: Name) -> None:
    tab = open_tab(name("alice")).start(name("bob")).write("secret")
    tab.shows("secret", "sent")
    tab.at("logout").click()
    expect(tab.at("login-user")).to_be_visible()
    left = tab.page.evaluate("indexedDB.databases().then((all) => all.map(({ name }) => name))")
    assert left == ["mqtt-im"]
    tab.page.reload()
    expect(tab.at("login-user")).to_be_visible()
