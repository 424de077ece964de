"""Makes the pictures of docs/images: `python -m tests.browser.screenshots`."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from mqtt_im.testing import ServerProcess
from tests.browser.tabs import ARGUMENTS, CHROMIUM, Tab

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"


def main() -> None:
    """Let three people talk, and look over their shoulders."""
    FOLDER.mkdir(exist_ok=True)
    with ServerProcess() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        url = f"http://{server.host}:{server.http_port}/"
        alice = _tab(browser, url, "alice", (1120, 700))
        bob = _tab(browser, url, "bob", (1120, 700), dark=True)
        carol = _tab(browser, url, "carol", (390, 760), locale="zh-CN")
        _talk(alice, bob, carol)
        bob.page.screenshot(path=FOLDER / "web-dark.png")
        carol.page.screenshot(path=FOLDER / "web-phone.png")
        alice.page.context.set_offline(True)
        alice.connection("offline")
        alice.write("I am in the tunnel, but this will arrive")
        alice.page.mouse.move(0, 0)
        alice.page.screenshot(path=FOLDER / "web-light.png")
        browser.close()


def _tab(browser: Browser, url: str, user: str, size: tuple[int, int], *, locale: str = "en-GB", dark: bool = False) -> Tab:
    view: ViewportSize = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=view, locale=locale, color_scheme="dark" if dark else "light")
    return Tab.open(context, url).login(user)


def _talk(alice: Tab, bob: Tab, carol: Tab) -> None:
    alice.start("bob").write("Morning! Did the sensors in hall 3 come back?")
    bob.open_conversation("alice:bob").write("At 06:40. What they missed is there, in order 🎉")
    alice.at("new-group").click()
    alice.at("group-name").fill("Night shift 夜班")
    alice.at("group-members").fill("bob carol")
    alice.at("group-create").click()
    expect(alice.page.locator(".chat-title")).to_contain_text("Night shift")
    alice.write("Who takes tonight? @carol, can you?")
    for tab in (bob, carol):
        tab.page.get_by_test_id("conversation").filter(has_text="Night").click()
    carol.write("我来，没问题 👌")
    expect(bob.message("我来，没问题 👌")).to_be_visible()
    bob.write("Thanks! The plan is at https://example.org/plan")
    expect(alice.at("message")).to_have_count(3)
    alice.message("我来，没问题 👌").hover()
    alice.message("我来，没问题 👌").get_by_role("button", name="Reply").click()
    alice.write("Great, see you at ten")
    alice.message("我来，没问题 👌").hover()
    alice.message("我来，没问题 👌").get_by_role("button", name="React").click()
    alice.page.get_by_role("menuitem", name="❤️").click()
    expect(carol.page.locator(".reaction")).to_be_visible()
    alice.shows("Great, see you at ten", "read")
    for tab in (alice, bob, carol):
        tab.page.mouse.move(0, 0)


if __name__ == "__main__":
    main()
