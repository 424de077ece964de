"""Tokens of another system: along with the address, or typed in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from playwright.sync_api import expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Open

SECRET = "a secret of thirty-two characters or more"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    key: Path = tmp_path_factory.mktemp("jwt") / "key"
    key.write_text(SECRET)
    with ServerProcess({"auth.mode": "jwt", "auth.jwt.key": str(key), "auth.jwt.algorithms": ["HS256"]}) as started:
        yield started


def token(user: str, secret: str = SECRET) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600}, secret, "HS256")


def test_a_token_in_the_fragment_lets_in_and_leaves_the_address(open_tab: Open, url: str) -> None:
    tab = open_tab()
    tab.page.goto("about:blank")
    tab.page.goto(f"{url}#token={token('alice')}")
    tab.online()
    assert tab.page.url == url
    assert "token" not in tab.page.evaluate("JSON.stringify([location.href, {...sessionStorage}, {...localStorage}])")
    tab.start("bob").write("hello")
    tab.shows("hello", "sent")
    tab.page.reload()
    tab.online()
    tab.page.evaluate(f"location.hash = '#token={token('bob')}'")  # somebody else, while the page is open
    expect(tab.page.locator(".side-foot .name")).to_have_text("bob")
    assert tab.page.url == url


def test_a_wrong_token_is_told(open_tab: Open) -> None:
    tab = open_tab()
    tab.at("login-user").fill("carol")
    tab.at("login-password").fill(token("carol", "another secret, also of that length"))
    tab.at("login-submit").click()
    expect(tab.page.get_by_role("alert")).to_have_text("Wrong name or password.")
    tab.login("carol", token("carol"))
