"""One who may send any body, name, title, reaction, mention, address: nothing of it runs, leads elsewhere or leaves its place."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Name, Open
from tests.browser.tabs import Tab
from tests.support.web import Web

MARKUP = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
ZALGO = "Z" + "".join(chr(0x300 + number) for number in range(60)) + "algo"
LONG = "W" * 3_000
LINKS = [
    "javascript:window.hacked=1",
    "JaVaScRiPt://x%0awindow.hacked=1",
    "data:text/html,<script>window.hacked=1</script>",
    "vbscript:x file:///etc/passwd blob:https://x/y intent://x#Intent;end",
    "http://[::1 https:// https:///x https://%zz",
    "//example.org/x www.example.org",
]
BODIES: list[Any] = [
    MARKUP,
    ZALGO * 20,
    LONG,
    "\u202e" + MARKUP,
    "\u0000\u0007\u2028\u2029\ufeff end",
    "😀" * 500,
    {"text": MARKUP},
    {"html": MARKUP, "__proto__": {"text": "x"}, "toString": "x", "constructor": {"prototype": 1}},
    [[[[[MARKUP]]]]],
    {"$bin": "PGI+"},
    None,
    True,
    -1e308,
    "",
    *LINKS,
]


def fits(tab: Tab, width: int) -> None:
    """Nothing is wider than the window, and nothing leaves the place where it stands."""
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    for part in (".scroller", ".side-body", ".chat-head", "dialog"):
        for box in tab.page.locator(part).all():
            assert box.evaluate("element => element.scrollWidth <= element.clientWidth + 1"), part
    wide = """all => all.map((each) => each.getBoundingClientRect())
        .filter((box) => box.width && (box.left < -1 || box.right > innerWidth + 1)).length"""
    assert tab.page.locator(".bubble, .system, .reaction, .file, .avatar, .badge").evaluate_all(wide) == 0


def test_nothing_that_is_sent_runs_or_breaks_the_page(open_tab: Open, name: Name, server: ServerProcess) -> None:
    alice, mallory = name("alice"), name("mallory")
    with Web(server.http_port) as web:
        web.login(mallory)
        group = web.must("group.create", id="g", name=f"\u202e{ZALGO}{MARKUP}", members=[alice])["group"]
        for number, body in enumerate(BODIES):
            web.must("send", id=f"b{number}", to=group, body=body)
        web.must("send", id="m", to=group, body=f"@{mallory} @.* @all @constructor {MARKUP}", mentions=["*", mallory])
        web.must("send", id="r", to=group, body="reply", reply_to=2)
        for number, emoji in enumerate(["<b>x</b>", "\u202e\u202e\u202e\u202e", ZALGO[:10], "__proto__", "W" * 32]):
            web.must("react", id=f"e{number}", conv=group, seq=2 + number, emoji=emoji)
        file = web.ask(
            "POST", "/api/v1/files?name=%E2%80%AEgnp.exe%22%3E%3Cimg%20src%3Dx%3E", body=b"x", Content_Type="image/png"
        ).data["id"]
        web.must("send", id="f", to=group, body=LONG[:200], files=[file])
        web.must("group.rename", id="n", group=group, name="W" * 250)
        web.must("send", id="d", to=alice, body=MARKUP, key="__proto__")
    requests: list[str] = []
    for width in (360, 1280):
        tab = open_tab(alice, width=width, height=740)
        tab.page.on("request", lambda request: requests.append(request.url))
        fits(tab, width)
        tab.conversation(group).click()
        expect(tab.message("reply")).to_be_visible()
        fits(tab, width)
        tab.page.locator(".scroller").evaluate("element => { element.scrollTop = 0; }")
        tab.page.wait_for_timeout(200)
        fits(tab, width)
        tab.at("conversation-menu").click()
        expect(tab.page.locator(".members li")).to_have_count(2)
        fits(tab, width)
        tab.page.keyboard.press("Escape")
        assert tab.page.evaluate("window.hacked") is None
        assert tab.page.locator(".messages a").count() == 0
        assert tab.page.locator(".message script, .message img, .message style, .message b").count() == 0
        expect(tab.page.locator(".file-name")).to_have_text('_gnp.exe"><img src=x>')  # not turned around
        ours = (tab.url, tab.url.replace("http", "ws"), f"blob:{tab.url}")
        assert [url for url in requests if not url.startswith(ours)] == []


def test_a_link_is_what_it_looks_like(open_tab: Open, name: Name) -> None:
    one = open_tab(name("alice")).start(name("bob"))
    one.write(
        "https://example.org/\u202egnp.exe",
        "https://exa\u200bmple.org/",
        "\u202ehttps://example.org/abc",
        "https://user:pw@example.org/x",
    )
    one.shows("https://user:pw@example.org/x", "sent")
    links = one.page.locator(".body a")
    assert links.all_inner_texts() == [
        "https://example.org/",
        "https://exa",
        "https://example.org/abc",
        "https://user:pw@example.org/x",
    ]
    for link in links.all():
        assert (link.get_attribute("href") or "").rstrip("/") == link.inner_text().rstrip("/")
        assert link.evaluate("element => getComputedStyle(element).direction") == "ltr"
        assert set((link.get_attribute("rel") or "").split()) >= {"noopener", "noreferrer"}


def test_addresses_and_messages_from_elsewhere_do_nothing(open_tab: Open, name: Name, url: str) -> None:
    alice = name("alice")
    tab = open_tab(alice)
    for fragment in (
        "#/%",
        f"#/{MARKUP}",
        "#/__proto__",
        "#token=x.y.z",
        "#token=",
        "#/%23nowhere",
        f"#/{alice}:bob:carol",
        "#//evil.example",
    ):
        tab.page.goto("about:blank")
        tab.page.goto(url + fragment)
        if fragment.startswith("#token="):
            tab.page.goto("about:blank")
            tab.page.goto(url)
        tab.online()
        assert tab.page.evaluate("window.hacked") is None
    for data in ({"open": MARKUP}, {"event": "ended"}, {"call": "x", "name": "constructor", "args": []}, None, "x"):
        tab.page.evaluate(f"window.postMessage({json.dumps(data)}, '*')")
    tab.page.wait_for_timeout(200)
    tab.online()
    expect(tab.at("login-user")).to_have_count(0)


def test_the_page_can_be_framed_by_nobody_and_runs_nothing_inline(open_tab: Open, url: str) -> None:
    tab = open_tab()
    response = tab.page.goto(url)
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
    tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const image = document.createElement("div");
            image.innerHTML = "<img src=x onerror='window.hacked = 1'><p style='position:fixed'>x</p>";
            document.body.append(image);
        }"""
    )
    tab.page.wait_for_timeout(200)
    assert tab.page.evaluate("window.hacked") is None
    frame = tab.page.context.new_page()
    frame.goto(url + "health/live")
    frame.evaluate(
        "address => { const frame = document.createElement('iframe'); frame.src = address; document.body.append(frame); }", url
    )
    frame.wait_for_timeout(500)
    assert all("login-user" not in each.content() for each in frame.frames[1:])
