"""Passwords, sessions that end, and whose messages stay in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Open
from tests.support.web import Web

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess({"auth.mode": "accounts", "auth.registration": True}) as started:
        for user in ("alice", "bob"):
            added = started.command("user", "add", user, "--password-stdin", stdin=PASSWORD)
            assert added.returncode == 0, added.stderr
        yield started


def test_a_wrong_password_is_told_and_the_right_one_lets_in(open_tab: Open) -> None:
    tab = open_tab()
    tab.at("login-user").fill("alice")
    tab.at("login-password").fill("wrong")
    tab.at("login-submit").click()
    expect(tab.page.get_by_role("alert")).to_have_text("Wrong name or password.")
    tab.at("login-user").fill("not a name")
    tab.at("login-submit").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("A name has 1 to 64")
    tab.login("alice", PASSWORD)
    kept = tab.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    token = tab.page.evaluate(
        """() => new Promise((resolve) => {
            const request = indexedDB.open("mqtt-im");
            request.onsuccess = () => {
                const got = request.result.transaction("accounts").objectStore("accounts").get("alice");
                got.onsuccess = () => resolve(got.result.token);
            };
        })"""
    )
    assert token and token not in kept and PASSWORD not in kept


def test_an_ended_session_asks_to_log_in_again_and_keeps_what_waits(open_tab: Open, server: ServerProcess) -> None:
    one, other = open_tab(), open_tab()
    other.login("bob", PASSWORD)
    one.login("alice", PASSWORD).start("bob").write("before")
    one.shows("before", "delivered")
    one.page.context.set_offline(True)
    one.connection("offline")
    one.write("kept")
    one.shows("kept", "pending")
    changed = server.command("user", "passwd", "alice", "--password-stdin", stdin=PASSWORD + "2")
    assert changed.returncode == 0, changed.stderr
    one.page.context.set_offline(False)
    expect(one.page.get_by_role("alert")).to_contain_text("Your session has ended")
    expect(one.at("login-user")).to_have_value("alice")
    one.login("alice", PASSWORD + "2")
    other.open_conversation("alice:bob").has("before", "kept")


def test_two_tabs_are_two_users(open_tab: Open, url: str, server: ServerProcess) -> None:
    server.command("user", "passwd", "alice", "--password-stdin", stdin=PASSWORD)
    one = open_tab()
    one.login("alice", PASSWORD)
    page = one.page.context.new_page()
    page.goto(url)
    page.get_by_test_id("logout").click()
    expect(page.get_by_test_id("login-user")).to_be_visible()
    expect(one.at("login-user")).to_be_visible()  # the same session, in both tabs
    page.get_by_test_id("login-user").fill("bob")
    page.get_by_test_id("login-password").fill(PASSWORD)
    page.get_by_test_id("login-submit").click()
    one.login("alice", PASSWORD)
    one.start("bob").write("from tab to tab")
    expect(page.locator('[data-testid="conversation"][data-conv="alice:bob"]')).to_contain_text("from tab to tab")
    page.reload()
    expect(page.locator(".side-foot .name")).to_have_text("bob")


def test_logging_out_ends_the_token(open_tab: Open, server: ServerProcess) -> None:
    tab = open_tab()
    tokens: list[str] = []
    tab.page.on(
        "request",
        lambda request: tokens.append(request.headers.get("authorization", "")) if request.url.endswith("/logout") else None,
    )
    tab.login("bob", PASSWORD)
    tab.at("logout").click()
    expect(tab.at("login-user")).to_be_visible()
    assert len(tokens) == 1
    with Web(server.http_port, tokens[0].removeprefix("Bearer ")) as web:
        web.refused("devices", 401, "unauthorized")


def test_anybody_may_make_an_account_where_that_is_allowed(open_tab: Open) -> None:
    tab = open_tab()
    tab.page.get_by_role("button", name="Make a new account").click()
    tab.at("login-user").fill("carol")
    tab.at("login-password").fill("short")
    tab.at("login-submit").click()
    expect(tab.page.get_by_role("alert")).to_have_text("The password needs 8 characters at least.")
    tab.login("carol", PASSWORD)
    tab.at("logout").click()
    tab.page.get_by_role("button", name="Make a new account").click()
    tab.at("login-user").fill("carol")
    tab.at("login-password").fill(PASSWORD)
    tab.at("login-submit").click()
    expect(tab.page.get_by_role("alert")).to_have_text("That name is taken.")
    tab.page.get_by_role("button", name="I have an account").click()
    tab.login("carol", PASSWORD)
