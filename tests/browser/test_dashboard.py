"""The dashboard as operators meet it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from mqtt_im.testing import ServerProcess
from tests.browser.tabs import PATIENCE_MS
from tests.support.im import ImClient
from tests.support.web import Web

TOKEN = "the-admin-token"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess({"auth.admin_token": TOKEN}) as started:
        yield started


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """The dashboard before anybody has signed in; nothing of it may raise, or be kept from loading."""
    context = browser.new_context(viewport={"width": 360, "height": 800}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(f"http://127.0.0.1:{server.http_port}/admin")
    yield page
    context.close()
    assert wrong == []


def sign_in(page: Page, token: str = TOKEN) -> None:
    page.get_by_test_id("admin-token").fill(token)
    page.get_by_test_id("admin-submit").click()


def test_a_wrong_token_is_told_and_kept_nowhere(page: Page) -> None:
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("This token is wrong.")
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0


def test_figures_users_devices_and_a_story(page: Page, server: ServerProcess) -> None:
    phone = ImClient(server.mqtt_port, "bob", "phone").sign_in().listen()
    with Web(server.http_port) as alice:
        alice.login("alice").must("send", to="bob", body="<b>hi</b>")
    phone.wait("msg")
    sign_in(page)
    expect(page.locator('[data-testid=figure][data-name="connections"]')).to_have_text("1")
    expect(page.locator('[data-testid=figure][data-name="messages"]')).to_have_text("1")
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    page.locator('[data-testid=user-row][data-user="bob"]').click()
    expect(page.locator('[data-testid=device-row][data-device="phone"]')).to_contain_text("online")
    page.get_by_label("Conversation").fill("alice:bob")
    page.get_by_label("Number (seq)").fill("1")
    page.get_by_role("button", name="Show").press("Enter")
    expect(
        page.get_by_role("cell", name="phone acknowledged").or_(page.get_by_role("cell", name="phone waiting"))
    ).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    phone.close()
    expect(page.locator('[data-testid=figure][data-name="connections"]')).to_have_text("0")


def test_a_restart_is_one_quiet_word(page: Page, server: ServerProcess) -> None:
    sign_in(page)
    state = page.locator("header [role=status]")
    expect(state).to_have_text("live")
    server.kill()
    expect(state).to_have_text("connection lost, trying again")
    server.restart()
    expect(state).to_have_text("live")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_everybody_can_use_it(browser: Browser, server: ServerProcess, scheme: str, language: str) -> None:
    """axe finds nothing serious, at 360 px nothing sticks out, and the keyboard alone opens a user."""
    with Web(server.http_port).login("keyboard") as web:
        web.must("send", to="keyboard", body="a note")
    context = browser.new_context(
        viewport={"width": 360, "height": 800}, locale=language, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"http://127.0.0.1:{server.http_port}/admin")
    found(page)
    page.keyboard.type(TOKEN)  # the field has the focus
    page.keyboard.press("Enter")
    row = page.locator("[data-user=keyboard] button")
    row.focus()
    page.keyboard.press("Enter")
    expect(row).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_test_id("figure").first).not_to_have_text("")
    found(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def found(page: Page) -> None:
    """Nothing that axe-core calls serious or critical."""
    violations = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    assert not violations, [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in violations]
