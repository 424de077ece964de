"""The dashboard as operators meet it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from mqtt_im.testing import ServerProcess
from tests.browser.tabs import PATIENCE_MS
from tests.support.im import ImClient
from tests.support.raw import eventually
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


def test_a_store_that_can_not_commit_is_said_though_nobody_writes(page: Page, server: ServerProcess) -> None:
    sign_in(page)
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    locks = [sqlite3.connect(file, timeout=5, isolation_level=None) for file in server.data_dir.glob("*.db")]
    try:
        for lock in locks:
            lock.execute("BEGIN EXCLUSIVE")
        expect(page.get_by_text("The store can't commit: ")).to_contain_text("mqtt-im doctor and the log say what to mend")
    finally:
        for lock in locks:
            lock.rollback()
            lock.close()
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()


def test_a_server_that_is_away_is_said_wherever_it_is_asked(page: Page, server: ServerProcess) -> None:
    with Web(server.http_port) as web:
        web.login("carol").must("send", to="carol", body="a note")
    sign_in(page)
    row = page.locator("[data-user=carol]")
    row.click()
    away = "The server does not answer."
    expect(page.get_by_role("button", name="Disconnect")).to_be_visible()
    server.kill()
    try:
        expect(page.get_by_text(f"{away[:-1]}, and what stands below is old.")).to_be_visible()
        page.get_by_role("button", name="Disconnect").click()
        expect(page.get_by_role("alert")).to_contain_text(away)
        page.get_by_label("Conversation").fill("carol:carol")
        page.get_by_label("Number (seq)").fill("1")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("button", name="Refresh").click()
        expect(page.get_by_text(away)).to_have_count(3)
        page.get_by_role("button", name="Sign out").click()
        sign_in(page)
        expect(page.get_by_role("alert")).to_contain_text(away)
    finally:
        server.restart()


def test_every_trouble_is_said_with_what_to_do(page: Page) -> None:
    """Figures that no test can have of a real server: each has its sentence, and the sentence goes with it."""
    well: dict[str, object] = {"ts": 1_800_000_000_000, "disk_bytes": 1 << 40, "disk_free_bytes": 1 << 39}
    troubles: dict[str, dict[str, object]] = {
        "The store can't commit: database or disk is full. ": {"store_failing": "database or disk is full"},
        "The disk is nearly full: 1 GiB are left. Make room": {"disk_free_bytes": 1 << 30},
        "A device is 10,000 items behind. ": {"worst_lag_items": 10_000},
        "7 webhooks were put aside after too many attempts. mqtt-im hooks list": {"webhooks_dead": 7},
        "9,000 requests wait for the store: ": {"ledger_queue_jobs": 9_000},
        "Commits are slow: one in a hundred takes 1,000 ms or more. ": {"commit_p99_ms": 1000},
    }

    def show(*stats: dict[str, object]) -> None:
        events = "".join(f"event: stats\ndata: {json.dumps({**well, **some})}\n\n" for some in stats)
        page.unroute("**/stats/stream")
        page.route("**/stats/stream", lambda route: route.fulfill(content_type="text/event-stream", body=events))

    page.evaluate("window.seen = new Set()")
    page.evaluate("""new MutationObserver(() => document.querySelectorAll(".wrong p").forEach((p) => seen.add(p.textContent)))
        .observe(document.body, { childList: true, subtree: true })""")
    guesses: list[dict[str, object]] = [{"logins_refused": 0}, {"ts": 1_800_000_030_000, "logins_refused": 101}]
    show(*({**found} for found in troubles.values()), *guesses)
    sign_in(page)
    eventually(lambda: page.evaluate("seen.size") >= 8, "all sentences")
    seen = page.evaluate("[...seen]")
    for beginning in (*troubles, "101 logins were refused in the last minute: "):
        assert any(sentence.startswith(beginning) for sentence in seen), (beginning, seen)


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
