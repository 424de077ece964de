"""The web chat as its users meet it: what a tab shows, and what one does in it."""

from __future__ import annotations

import re
from typing import Self

from playwright.sync_api import BrowserContext, Locator, Page, expect

PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP chat.test 127.0.0.1",  # an origin that browsers don't trust
]
CHROMIUM = "/usr/bin/chromium"


class Tab:
    """One page of the web chat."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @classmethod
    def open(cls, context: BrowserContext, url: str) -> Self:
        tab = cls(context.new_page(), url)
        tab.page.goto(url)
        return tab

    def at(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def login(self, user: str, password: str | None = None) -> Self:
        self.at("login-user").fill(user)
        if password is not None:
            self.at("login-password").fill(password)
        self.at("login-submit").click()
        return self.online()

    def online(self) -> Self:
        self.connection("online")
        return self

    def connection(self, state: str) -> None:
        expect(self.at("connection")).to_have_attribute("data-state", state)

    def start(self, to: str) -> Self:
        """Begin a conversation with a user."""
        self.at("new-conversation").click()
        self.at("new-conversation-name").fill(to)
        self.at("new-conversation-start").click()
        expect(self.at("composer")).to_be_visible()
        return self

    def open_conversation(self, conv: str) -> Self:
        self.conversation(conv).click()
        expect(self.at("composer")).to_be_visible()
        return self

    def conversation(self, conv: str) -> Locator:
        return self.page.locator(f'[data-testid="conversation"][data-conv="{conv}"]')

    def write(self, *texts: str) -> Self:
        for text in texts:
            self.at("composer").fill(text)
            self.at("send").click()
            expect(self.at("composer")).to_have_value("")
        return self

    def message(self, text: str) -> Locator:
        return self.at("message").filter(has=self.page.locator(".body", has_text=re.compile(f"^{re.escape(text)}$")))

    def shows(self, text: str, state: str) -> None:
        """Wait until the message with this text is there, once, in this state."""
        expect(self.message(text)).to_have_attribute("data-state", state)

    def bodies(self) -> list[str]:
        """The texts of all messages, from the oldest."""
        return self.page.locator('[data-testid="message"] .body').all_inner_texts()

    def has(self, *texts: str) -> None:
        """Wait until these are the texts of all messages."""
        expect(self.page.locator('[data-testid="message"] .body')).to_have_text(
            [re.compile(f"^{re.escape(text)}$") for text in texts]
        )

    def seqs(self) -> list[str | None]:
        return [message.get_attribute("data-seq") for message in self.at("message").all()]

    def worker(self) -> None:
        """Wait until the service worker can open the page without a network."""
        self.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
