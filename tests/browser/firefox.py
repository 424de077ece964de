"""The web chat once in Firefox: `make firefox`. Drives Debian's Firefox ESR over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/)."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from mqtt_im.testing import ServerProcess, free_ports

PATIENCE_S = 60.0
HOSTILE = "<img src=x onerror='window.hacked = 1'>"
PREFERENCES = """
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,");
user_pref("toolkit.telemetry.enabled", false);
"""


class Firefox:
    """A running browser."""

    def __init__(self, line: ClientConnection) -> None:
        self._line = line
        self._ids = itertools.count(1)
        self.ask("session.new", capabilities={})

    def ask(self, method: str, **parameters: Any) -> Any:
        """The result of a command. Raises `RuntimeError`."""
        number = next(self._ids)
        self._line.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._line.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                return answer["result"]


class Tab:
    """One page, in a container of its own."""

    def __init__(self, firefox: Firefox, url: str) -> None:
        self._firefox = firefox
        container = firefox.ask("browser.createUserContext")["userContext"]
        self._context = firefox.ask("browsingContext.create", type="tab", userContext=container)["context"]
        self.go(url)

    def go(self, url: str) -> None:
        self._firefox.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def reload(self) -> None:
        self._firefox.ask("browsingContext.reload", context=self._context, wait="complete")

    def run(self, expression: str) -> Any:
        """What the expression gives in the page, by way of JSON."""
        text = f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))"
        target = {"context": self._context}
        result = self._firefox.ask("script.evaluate", expression=text, target=target, awaitPromise=True)
        if result["type"] != "success":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    def until(self, expression: str) -> None:
        """Wait until the expression is true in the page."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(expression):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {expression}")
            time.sleep(0.1)

    def fill(self, handle: str, text: str) -> None:
        self.until(f"!!{at(handle)}")
        self.run(
            f"({at(handle)}.value = {json.dumps(text)}, {at(handle)}.dispatchEvent(new Event('input', {{ bubbles: true }})))"
        )

    def click(self, handle: str) -> None:
        self.until(f"!!{at(handle)}")
        self.run(f"({at(handle)}.click(), true)")

    def login(self, user: str) -> None:
        self.fill("login-user", user)
        self.click("login-submit")
        self.connection("online")

    def connection(self, state: str) -> None:
        self.until(f"{at('connection')}?.dataset.state === '{state}'")

    def write(self, text: str) -> None:
        self.fill("composer", text)
        self.click("send")

    def shows(self, text: str, state: str) -> None:
        """Wait until this message is there, once, in this state."""
        all_ = "[...document.querySelectorAll('[data-testid=message]')]"
        same = f"{all_}.filter((each) => each.querySelector('.body')?.textContent === {json.dumps(text)})"
        self.until(f"{same}.length === 1 && {same}[0].dataset.state === '{state}'")


def at(handle: str) -> str:
    return f"document.querySelector('[data-testid={handle}]')"


@contextlib.contextmanager
def running() -> Iterator[Firefox]:
    """A Firefox with a profile of its own, gone afterwards."""
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="mqtt-im-firefox-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "user.js").write_text(PREFERENCES)
        command = [
            "firefox-esr",
            "--headless",
            "--no-remote",
            "--profile",
            folder,
            f"--remote-debugging-port={port}",
            "about:blank",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Firefox(_connected(port))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _connected(port: int) -> ClientConnection:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return connect(f"ws://127.0.0.1:{port}/session", max_size=None, proxy=None)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main() -> None:
    """Two people chat, one reloads, the server is killed with a message pending. Raises what goes wrong."""
    with ServerProcess() as server, running() as firefox:
        url = f"http://{server.host}:{server.http_port}/"
        alice, bob = Tab(firefox, url), Tab(firefox, url)
        steps: list[tuple[str, Callable[[], None]]] = [
            ("alice logs in", lambda: alice.login("alice")),
            ("bob logs in", lambda: bob.login("bob")),
            ("they chat", lambda: _chat(alice, bob)),
            ("a reload keeps everything", lambda: _reload(alice)),
            ("the server is killed with a message pending", lambda: _kill(alice, bob, server)),
            ("the service worker opens the page without a server", lambda: _without_server(alice, server)),
        ]
        for what, step in steps:
            step()
            sys.stdout.write(f"{what}: well\n")


def _chat(alice: Tab, bob: Tab) -> None:
    alice.click("new-conversation")
    alice.fill("new-conversation-name", "bob")
    alice.click("new-conversation-start")
    alice.write(HOSTILE)
    alice.shows(HOSTILE, "delivered")
    bob.click("conversation")
    alice.shows(HOSTILE, "read")
    bob.write("你好")
    alice.shows("你好", "received")
    assert bob.run("window.hacked") is None


def _reload(tab: Tab) -> None:
    tab.reload()
    tab.connection("online")
    tab.shows(HOSTILE, "read")


def _kill(alice: Tab, bob: Tab, server: ServerProcess) -> None:
    server.kill()
    alice.connection("offline")
    alice.write("pending")
    alice.shows("pending", "pending")
    server.start()
    alice.connection("online")
    bob.shows("pending", "received")
    alice.shows("pending", "read")


def _without_server(tab: Tab, server: ServerProcess) -> None:
    tab.run("navigator.serviceWorker.ready.then(() => true)")
    server.kill()
    tab.reload()
    tab.shows("pending", "read")


if __name__ == "__main__":
    main()
