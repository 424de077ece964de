"""Tunnels, reloads, killed browsers and servers: nothing that was written is lost, doubled or out of order."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
from playwright.sync_api import Playwright, expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Name, Open
from tests.browser.tabs import ARGUMENTS, CHROMIUM, Tab

LINES = ["one", "two", "three"]


def test_what_is_written_offline_survives_a_reload_and_arrives_once_in_order(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("zero")
    one.shows("zero", "delivered")
    one.worker()
    expect(one.page.locator(".chat-title p")).to_have_text("online")
    one.page.context.set_offline(True)
    one.connection("offline")
    expect(one.page.locator(".chat-title p")).to_have_text("")  # nobody knows without a line
    one.write(*LINES)
    for line in LINES:
        one.shows(line, "pending")
    one.page.reload()
    one.connection("offline")
    one.has("zero", *LINES)
    for line in LINES:
        one.shows(line, "pending")
    one.write("four")
    one.page.context.set_offline(False)
    one.online()
    other.open_conversation(f"{alice}:{bob}")
    for tab in (one, other):
        tab.has("zero", *LINES, "four")
        assert tab.seqs() == ["1", "2", "3", "4", "5"]
    one.shows("four", "read")


def test_what_comes_while_a_browser_is_offline_is_there_afterwards(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("zero")
    other.open_conversation(f"{alice}:{bob}").has("zero")
    other.page.context.set_offline(True)
    other.connection("offline")
    one.write(*LINES)
    one.shows("three", "sent")
    other.page.context.set_offline(False)
    other.has("zero", *LINES)
    one.shows("three", "read")


def test_a_killed_server_is_one_quiet_line(open_tab: Open, name: Name, server: ServerProcess) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("before")
    one.shows("before", "delivered")
    server.kill()
    one.connection("offline")
    one.write(*LINES)
    one.shows("three", "pending")
    server.start()
    one.online()
    other.online()
    other.open_conversation(f"{alice}:{bob}")
    for tab in (one, other):
        tab.has("before", *LINES)
        assert tab.seqs() == ["1", "2", "3", "4"]


def test_a_killed_browser_has_what_was_pending(
    playwright: Playwright, open_tab: Open, name: Name, url: str, tmp_path: Path
) -> None:
    alice, bob = name("alice"), name("bob")
    other = open_tab(bob)

    def start() -> Tab:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=CHROMIUM, args=ARGUMENTS
        )
        return Tab.open(context, url)

    one = start().login(alice)
    one.start(bob)
    one.worker()
    one.page.context.set_offline(True)
    one.connection("offline")
    one.write(*LINES)
    one.shows("three", "pending")
    killed = [each for each in psutil.Process().children(recursive=True) if str(tmp_path / "profile") in " ".join(each.cmdline())]
    assert killed
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(killed, timeout=20)
    one = start().online()
    other.open_conversation(f"{alice}:{bob}")
    other.has(*LINES)
    one.open_conversation(f"{alice}:{bob}")
    one.has(*LINES)
    assert one.seqs() == other.seqs() == ["1", "2", "3"]
    one.page.context.close()


def test_a_group_that_is_made_as_the_line_goes_is_made_once(open_tab: Open, name: Name, server: ServerProcess) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.at("new-group").click()
    one.at("group-name").fill("Once")
    one.at("group-members").fill(bob)
    server.signal(signal.SIGSTOP)
    try:
        one.at("group-create").click()
        expect(one.page.locator("#notice")).to_contain_text("The line was lost. This is done as soon as it is back.")
        expect(one.page.locator("dialog")).to_have_count(0)
    finally:
        server.signal(signal.SIGCONT)
    one.online()
    for tab in (one, other):
        expect(tab.at("conversation")).to_have_count(1)
        expect(tab.at("conversation")).to_contain_text("Once")


def test_two_tabs_are_one_device(open_tab: Open, name: Name, url: str) -> None:
    alice, bob = name("alice"), name("bob")
    one, peer = open_tab(alice), open_tab(bob)
    one.start(bob)
    two = Tab.open(one.page.context, url).online()
    two.open_conversation(f"{alice}:{bob}") if two.conversation(f"{alice}:{bob}").count() else two.start(bob)
    one.write("from the first")
    two.shows("from the first", "delivered")
    two.write("from the second")
    one.shows("from the second", "delivered")
    one.page.close()  # it had the connection
    two.write("from the one that is left")
    two.shows("from the one that is left", "delivered")
    peer.open_conversation(f"{alice}:{bob}").has("from the first", "from the second", "from the one that is left")
    expect(two.message("from the one that is left")).to_have_attribute("data-state", "read")
    assert not two.errors
