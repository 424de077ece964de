"""What one can do with messages, people, groups, and the page itself."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Name, Open
from tests.browser.tabs import Tab
from tests.browser.test_files import png
from tests.support.web import Web


def tool(tab: Tab, text: str, label: str) -> None:
    """Use one of the buttons at a message."""
    tab.message(text).hover()
    tab.message(text).get_by_role("button", name=label, exact=True).click()


def more(tab: Tab, text: str, label: str) -> None:
    tool(tab, text, "More")
    tab.page.get_by_role("menuitem", name=label, exact=True).click()


def test_reply_react_edit_and_take_back(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("first", "second", "third")
    other.open_conversation(f"{alice}:{bob}")
    tool(other, "first", "Reply")
    other.write("an answer")
    expect(one.message("an answer").locator(".quote")).to_contain_text("first")
    tool(one, "second", "React")
    one.page.get_by_role("menuitem", name="❤️").click()
    reaction = other.message("second").locator(".reaction")
    expect(reaction).to_have_text("❤️ 1")
    reaction.click()
    expect(one.message("second").locator(".reaction")).to_have_text("❤️ 2")
    other.message("second").locator(".reaction").click()
    expect(one.message("second").locator(".reaction")).to_have_text("❤️ 1")
    more(one, "third", "Edit")
    one.write("third, mended")
    expect(other.message("third, mended")).to_contain_text("edited")
    more(one, "first", "Take back")
    one.page.locator("dialog").get_by_role("button", name="Take back").click()
    for tab in (one, other):
        expect(tab.page.locator('[data-testid="message"][data-seq="1"]')).to_contain_text("Message taken back")
        expect(tab.message("an answer").locator(".quote")).not_to_contain_text("first")


def test_what_is_changed_offline_is_seen_at_once_and_told_later(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("first")
    one.shows("first", "delivered")
    other.open_conversation(f"{alice}:{bob}")
    one.page.context.set_offline(True)
    one.connection("offline")
    more(one, "first", "Edit")
    one.write("first, mended")
    expect(one.message("first, mended")).to_be_visible()
    one.page.context.set_offline(False)
    other.shows("first, mended", "received")


def test_a_group_is_led(open_tab: Open, name: Name) -> None:
    alice, bob, carol = name("alice"), name("bob"), name("carol")
    one, other, third = open_tab(alice), open_tab(bob), open_tab(carol)
    one.at("new-group").click()
    one.at("group-name").fill("Before")
    one.at("group-members").fill(bob)
    one.at("group-create").click()
    expect(one.at("composer")).to_be_visible()
    one.at("conversation-menu").click()
    one.at("group-add-names").fill(carol)
    one.page.get_by_role("button", name="Add", exact=True).click()
    expect(one.page.locator(".members")).to_contain_text(carol)
    one.at("group-rename-name").fill("After")
    one.page.get_by_role("button", name="Rename").click()
    expect(other.page.get_by_test_id("conversation")).to_contain_text("After")
    one.page.get_by_role("button", name=f"Change {bob}").click()
    one.page.get_by_role("menuitem", name="Make admin").click()
    expect(one.page.locator(".members li").filter(has_text=bob)).to_contain_text("admin")
    one.page.keyboard.press("Escape")
    one.write(f"welcome @{carol}")
    third_row = third.page.get_by_test_id("conversation")
    expect(third_row).to_contain_text("@")
    third_row.click()
    expect(third.page.locator(".body mark")).to_have_text(f"@{carol}")
    other.page.get_by_test_id("conversation").click()
    other.at("conversation-menu").click()
    other.page.get_by_role("button", name=f"Change {carol}").click()
    other.page.get_by_role("menuitem", name="Remove").click()
    expect(third.page.locator(".chat-title")).to_contain_text("You are no longer in this group")
    expect(third.at("composer")).not_to_be_visible()
    other.page.get_by_role("button", name="Leave").click()
    other.page.locator("dialog").last.get_by_role("button", name="Leave").click()
    expect(one.page.locator('[data-testid="system"]').last).to_have_text(f"{bob} left")


def test_block_and_mute(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("hello")
    other.open_conversation(f"{alice}:{bob}")
    other.at("conversation-menu").click()
    other.page.get_by_role("button", name="Mute", exact=True).click()
    other.page.get_by_role("menuitem", name="For an hour").click()
    expect(other.page.locator("#notice")).to_have_text("Muted")
    other.page.get_by_role("button", name="Block").click()
    expect(other.page.locator("#notice")).to_contain_text("can't write to you")
    one.write("are you there?", "and this?")
    one.shows("are you there?", "failed")
    one.shows("and this?", "failed")
    expect(one.message("are you there?")).to_contain_text("This user does not take messages from you.")
    one.message("and this?").get_by_role("button", name="Discard").click()
    expect(one.message("and this?")).to_have_count(0)
    other.at("conversation-menu").click()
    other.page.get_by_role("button", name="Unblock").click()
    expect(other.page.locator("#notice")).to_contain_text("may write to you again")
    one.message("are you there?").get_by_role("button", name="Try again").click()
    one.shows("are you there?", "read")


def test_what_one_sets_offline_holds_at_once_and_is_told_later(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("hello")
    other.open_conversation(f"{alice}:{bob}").write("good day")
    one.at("menu").click()
    one.page.get_by_role("menuitem", name="Settings").click()
    expect(one.page.get_by_label("Others see when I am online")).to_be_checked()
    one.page.keyboard.press("Escape")
    one.worker()
    one.page.context.set_offline(True)
    one.connection("offline")
    one.at("conversation-menu").click()
    one.page.get_by_role("button", name="Mute", exact=True).click()
    one.page.get_by_role("menuitem", name="Until I unmute it").click()
    one.page.get_by_role("button", name="Block", exact=True).click()
    expect(one.page.locator("#notice")).to_contain_text("can't write to you")
    one.at("menu").click()
    one.page.get_by_role("menuitem", name="Settings").click()
    one.page.get_by_label("Others see when I am online").uncheck()
    one.page.keyboard.press("Escape")
    one.at("new-group").click()
    one.at("group-name").fill("No line")
    one.at("group-create").click()
    expect(one.page.get_by_role("alert").filter(has_text="You are offline")).to_be_visible()
    one.page.keyboard.press("Escape")
    one.page.reload()  # what waits survives it
    one.connection("offline")
    one.at("conversation-menu").click()
    expect(one.page.get_by_role("button", name="Unmute")).to_be_visible()
    expect(one.page.get_by_role("button", name="Unblock")).to_be_visible()
    one.page.keyboard.press("Escape")
    one.page.context.set_offline(False)
    one.online()
    other.write("do you hear me?")
    other.shows("do you hear me?", "failed")
    one.at("menu").click()
    one.page.get_by_role("menuitem", name="Settings").click()
    expect(one.page.get_by_label("Others see when I am online")).not_to_be_checked()
    expect(one.page.get_by_label("Others see what I have read")).to_be_checked()
    expect(one.at("conversation")).to_have_count(1)  # no group was made


def test_search_and_a_long_conversation(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob)
    one.write("the needle in it")
    one.shows("the needle in it", "delivered")
    for number in range(60):
        one.at("composer").fill(f"line {number}")
        one.at("composer").press("Enter")
    one.shows("line 59", "delivered")
    other.open_conversation(f"{alice}:{bob}")
    other.shows("line 59", "received")
    scroller = other.page.locator(".scroller")
    for _ in range(20):
        scroller.evaluate("element => { element.scrollTop = 0; }")
        if other.message("the needle in it").count():
            break
        other.page.wait_for_timeout(50)
    expect(other.message("the needle in it")).to_have_count(1)
    seqs = [int(seq) for seq in other.seqs() if seq]
    assert seqs == list(range(seqs[0], seqs[-1] + 1))
    expect(other.page.get_by_role("button", name="To the newest message")).to_be_visible()
    other.page.get_by_role("button", name="To the newest message").click()
    expect(other.message("line 59")).to_be_in_viewport()
    other.page.get_by_role("searchbox", name="Search").fill("needle")
    other.page.locator(".result").click()
    expect(other.message("the needle in it")).to_be_in_viewport()


LOOK = """() => new Promise((resolve) => {
    const scroller = document.querySelector(".scroller");
    const top = scroller.getBoundingClientRect().top;
    const box = (each) => each.getBoundingClientRect();
    const first = [...document.querySelectorAll("[data-testid=message]")].find((each) => box(each).bottom > top + 5);
    const before = box(first).top;
    const step = Math.min(350, scroller.scrollTop);
    const end = performance.now() + 200;
    let worst = 0;
    scroller.scrollTop -= step;
    const look = () => {
        worst = Math.max(worst, Math.abs(box(first).top - before - step));
        if (performance.now() < end) requestAnimationFrame(look);
        else resolve({ worst, at: Number(first.dataset.seq) });
    };
    requestAnimationFrame(look);
})"""


def test_older_messages_come_without_a_jump(open_tab: Open, name: Name, server: ServerProcess) -> None:
    alice, bob = name("alice"), name("bob")
    with Web(server.http_port) as web:
        web.login(bob)
        file = web.ask("POST", "/api/v1/files?name=p.png", body=png(640, 400), Content_Type="image/png").data["id"]
        for number in range(160):
            body = f"line {number} " + "word " * (number * 7 % 90)
            web.must("send", id=f"i{number}", to=alice, body=body, files=[file] if number % 9 == 0 else [])
    tab = open_tab(alice, width=700)
    tab.open_conversation(f"{alice}:{bob}")
    expect(tab.page.locator('[data-seq="160"]')).to_be_visible()
    for _ in range(100):
        seen = tab.page.evaluate(LOOK)
        assert seen["worst"] < 3, seen
        if seen["at"] == 1:
            return
    raise AssertionError(seen)


def test_devices_and_settings(open_tab: Open, name: Name) -> None:
    alice = name("alice")
    one, other = open_tab(alice), open_tab(alice)
    one.at("menu").click()
    one.page.get_by_role("menuitem", name="Devices").click()
    expect(one.page.locator(".members li")).to_have_count(2)
    one.page.locator("dialog").get_by_role("button", name=re.compile("^Forget web-")).click()
    one.page.locator("dialog").last.get_by_role("button", name="Forget", exact=True).click()
    expect(one.page.locator(".members li").filter(has_text="this browser")).to_have_count(1)
    one.page.keyboard.press("Escape")
    one.at("menu").click()
    one.page.get_by_role("menuitem", name="Settings").click()
    one.page.get_by_label("Appearance").select_option("dark")
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 21)"
    one.page.get_by_label("Language").select_option("zh")
    expect(one.page.get_by_text("选择一个会话，或开始新会话。")).to_be_visible()
    assert one.page.evaluate("document.documentElement.lang") == "zh"
    assert not other.errors


def test_what_is_written_on_one_device_is_on_the_other(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(alice)
    one.start(bob).write("from the desk")
    other.open_conversation(f"{alice}:{bob}").write("from the phone")
    for tab in (one, other):
        tab.has("from the desk", "from the phone")
        assert tab.seqs() == ["1", "2"]
