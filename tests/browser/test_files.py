"""Pictures and other files: sent, shown, kept through a tunnel, refused; none of them can do anything in the page."""

from __future__ import annotations

import io
import struct
import time
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, expect

from mqtt_im.testing import ServerProcess
from tests.browser.conftest import Name, Open
from tests.browser.tabs import Tab

MOST_BYTES = 100_000
HOSTILE_NAME = '"><img src=x onerror=hacked=1>.svg'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="parent.hacked=1"><script>window.hacked=1</script></svg>'


def png(width: int = 64, height: int = 48) -> bytes:
    """A picture in one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x0f\x76\x6e" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURE = FilePayload(name="hall 3.png", mimeType="image/png", buffer=png())


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess({"files.max_bytes": MOST_BYTES}) as started:
        yield started


def shows_picture(tab: Tab) -> None:
    image = tab.at("message").locator("img").first
    expect(image).to_have_js_property("naturalWidth", 64)


def test_a_picture_and_a_document(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob)
    one.at("attach").set_input_files([PICTURE, FilePayload(name="notes.txt", mimeType="text/plain", buffer=b"line by line")])
    expect(one.page.locator(".about")).to_have_count(2)
    one.write("two files")
    one.shows("two files", "delivered")
    other.open_conversation(f"{alice}:{bob}")
    for tab in (one, other):
        shows_picture(tab)
    with other.page.expect_download() as download:
        other.page.get_by_role("button", name="Download notes.txt").click()
    assert download.value.suggested_filename == "notes.txt"
    assert Path(download.value.path()).read_bytes() == b"line by line"
    other.page.get_by_role("button", name="Open hall 3.png").click()
    expect(other.page.locator("dialog.lightbox img")).to_have_js_property("naturalWidth", 64)
    other.page.keyboard.press("Escape")
    other.worker()
    other.page.context.set_offline(True)
    other.page.reload()
    shows_picture(other)  # from this browser's own store


def test_a_picture_waits_in_a_tunnel_and_holds_up_nobody_else(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob).write("before")
    one.shows("before", "delivered")
    one.worker()
    one.page.context.set_offline(True)
    one.connection("offline")
    one.at("attach").set_input_files(PICTURE)
    one.at("send").click()
    one.write("behind it")
    shows_picture(one)
    one.page.reload()
    shows_picture(one)
    one.page.context.set_offline(False)
    other.open_conversation(f"{alice}:{bob}")
    expect(other.message("behind it")).to_be_visible()
    shows_picture(other)
    assert [message.locator("img").count() for message in other.at("message").all()] == [0, 1, 0]
    one.shows("behind it", "read")


def wav(seconds: int = 2, rate: int = 8000) -> bytes:
    """A sound: a rising saw."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(1)
            sound.setframerate(rate)
            sound.writeframes(bytes(number % 64 + 96 for number in range(seconds * rate)))
        return file.getvalue()


FILM = """async () => {
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d");
    const draw = () => {
        pen.fillStyle = `hsl(${Math.random() * 360} 50% 50%)`;
        pen.fillRect(0, 0, 300, 150);
    };
    const timer = setInterval(draw, 30);
    draw();
    const recorder = new MediaRecorder(canvas.captureStream(), { mimeType: "video/webm" });
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const ended = new Promise((resolve) => { recorder.onstop = resolve; });
    recorder.start();
    setTimeout(() => recorder.stop(), 700);
    await ended;
    clearInterval(timer);
    return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
}"""


def test_sound_and_films_play_where_they_stand(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    film = bytes(one.page.evaluate(FILM))
    assert len(film) < MOST_BYTES
    one.start(bob)
    one.at("attach").set_input_files(
        [
            FilePayload(name="voice.wav", mimeType="audio/wav", buffer=wav()),
            FilePayload(name="film.webm", mimeType="video/webm", buffer=film),
            FilePayload(name="broken.mp3", mimeType="audio/mpeg", buffer=b"no sound at all"),
        ]
    )
    one.write("hear and see")
    one.shows("hear and see", "delivered")
    other.open_conversation(f"{alice}:{bob}")
    expect(other.page.locator(".media")).to_have_count(3)
    expect(other.page.locator("audio, video")).to_have_count(0)  # nothing is loaded before somebody asks
    for kind, file in (("audio", "voice.wav"), ("video", "film.webm")):
        other.page.get_by_role("button", name=f"Play {file}").click()
        player = other.page.locator(kind)
        expect(player).to_be_visible()
        player.evaluate(
            """player => new Promise((resolve) => {
                player.addEventListener("ended", resolve);
                player.muted = true;
                player.play();
            })"""
        )
        assert player.evaluate("player => player.currentTime") > 0.3
    expect(other.page.locator("video")).to_have_js_property("videoWidth", 300)
    other.page.get_by_role("button", name="Play broken.mp3").click()
    expect(other.page.get_by_role("button", name="Download broken.mp3")).to_be_visible()


def test_a_picture_that_was_taken_back_leaves_the_browser(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob)
    one.at("attach").set_input_files(PICTURE)
    one.write("not for you")
    other.open_conversation(f"{alice}:{bob}")
    shows_picture(other)
    kept = f"caches.open('files {bob}').then((cache) => cache.keys()).then((all) => all.length)"
    assert other.page.evaluate(kept) == 1
    one.message("not for you").hover()
    one.message("not for you").get_by_role("button", name="More").click()
    one.page.get_by_role("menuitem", name="Take back").click()
    one.page.locator("dialog").get_by_role("button", name="Take back").click()
    expect(other.at("message")).to_contain_text("Message taken back")
    deadline = time.monotonic() + 20
    while other.page.evaluate(kept) and time.monotonic() < deadline:
        other.page.wait_for_timeout(50)
    assert other.page.evaluate(kept) == 0


def test_hostile_files_do_nothing(open_tab: Open, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = open_tab(alice), open_tab(bob)
    one.start(bob)
    files = [
        FilePayload(name=HOSTILE_NAME, mimeType="image/svg+xml", buffer=SVG),
        FilePayload(name="page.html", mimeType="text/html", buffer=b"<script>window.hacked=1</script>"),
        FilePayload(name="not.png", mimeType="image/png", buffer=SVG),
    ]
    one.at("attach").set_input_files(files)
    one.write("look at these")
    one.shows("look at these", "delivered")
    other.open_conversation(f"{alice}:{bob}")
    for tab in (one, other):
        expect(tab.page.locator(".file")).to_have_count(3)  # the broken picture too
        expect(tab.page.locator(".message img")).to_have_count(0)
        assert tab.page.evaluate("window.hacked") is None


def test_a_file_that_is_too_large_says_so(open_tab: Open, name: Name) -> None:
    one = open_tab(name("alice")).start(name("bob"))
    one.at("attach").set_input_files(FilePayload(name="big.bin", mimeType="application/x-big", buffer=b"x" * (MOST_BYTES + 1)))
    one.write("too much")
    one.shows("too much", "failed")
    expect(one.message("too much")).to_contain_text("This is too large.")
    one.message("too much").get_by_role("button", name="Discard").click()
    expect(one.message("too much")).to_have_count(0)


def test_pictures_are_dropped_and_pasted(open_tab: Open, name: Name) -> None:
    one = open_tab(name("alice")).start(name("bob"))
    give = """(element, kind) => {
        const data = new DataTransfer();
        data.items.add(new File(["x"], `${kind}.txt`, { type: "text/plain" }));
        const options = { bubbles: true, cancelable: true };
        element.dispatchEvent(kind === "drop" ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }));
    }"""
    one.at("composer").evaluate(give, "drop")
    one.at("composer").evaluate(give, "paste")
    expect(one.page.locator(".about-text")).to_contain_text(["drop.txt", "paste.txt"])
    one.at("send").click()
    expect(one.page.locator(".message .file")).to_have_count(2)
    one.page.locator('[data-testid="message"][data-state="sent"]').wait_for()
