"""The web chat's files: light, whole, and those of others unchanged."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from mqtt_im.http.chat import FOLDER, Release, release

MOST_BYTES = 200 * 1024
CODE = [path for path in FOLDER.rglob("*.js") if "vendor" not in path.parts]


def test_vendored_files_are_what_their_page_says() -> None:
    page = (FOLDER / "vendor" / "README.md").read_text("utf-8")
    told = dict(re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", page, re.MULTILINE))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (FOLDER / "vendor").iterdir()}
    del files["README.md"]
    assert told == files


def test_the_page_is_light() -> None:
    assert release().weight <= MOST_BYTES


def test_every_import_leads_to_a_file() -> None:
    for path in CODE:
        for target in re.findall(r"""(?:from|import\(?)\s*["'](\.[^"']+)["']""", path.read_text("utf-8")):
            assert (path.parent / target).resolve().is_file(), (path.name, target)


def test_the_messaging_core_knows_no_page() -> None:
    for path in (FOLDER / "core").iterdir():
        text = path.read_text("utf-8")
        assert not re.search(r"\b(document|window|localStorage|sessionStorage)\b[.\[(]", text), path.name
        assert '"../ui' not in text, path.name


def test_nothing_is_ever_read_as_html() -> None:
    for path in CODE:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text("utf-8")
        ), path


def test_files_have_one_subject() -> None:
    for path in [*CODE, FOLDER / "app.css"]:
        assert len(path.read_text("utf-8").splitlines()) < 400, path.name


def test_one_changed_byte_is_another_release(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "chat")
    assert Release(tmp_path / "chat").version == release().version
    with (tmp_path / "chat" / "ui" / "dom.js").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert Release(tmp_path / "chat").version != release().version


def test_every_text_is_there_in_chinese() -> None:
    used: set[str] = set()
    for path in CODE:
        if path.name != "zh.js":
            used.update(re.findall(r'\bt\("([^"]+)"', path.read_text("utf-8")))
    told = set(re.findall(r'^  "([^"]+)":', (FOLDER / "ui" / "zh.js").read_text("utf-8"), re.MULTILINE))
    assert used - told == set()
    assert told - used <= {"owner", "admin", "member"}  # roles, as the server names them
