"""Pages that must be complete and true: every op, field, code and metric has its place, and every example is what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from mqtt_im.client import reference
from mqtt_im.config import KEYS, Config
from mqtt_im.metrics import FIGURES, SUMS
from mqtt_im.metrics.reference import render
from mqtt_im.protocol import errors, requests
from mqtt_im.protocol.codec import decode_request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DOWNLINK_SOURCES = ("bridge", "core", "store")
OPS: dict[str, type[requests.Request]] = {kind.__struct_config__.tag: kind for kind in get_args(requests.AnyRequest)}


class Example(NamedTuple):
    direction: str
    text: str


def examples() -> list[Example]:
    """The JSON values of the page, which stand one after the other in their fences; `up`, `down` or neither is said there."""
    found: list[Example] = []
    decoder = json.JSONDecoder()
    for direction, block in re.findall(r"^```json ?(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        rest = block.strip()
        while rest:
            _, end = decoder.raw_decode(rest)
            found.append(Example(direction, rest[:end]))
            rest = rest[end:].lstrip()
    return found


def examples_of(direction: str) -> list[dict[str, Any]]:
    return [json.loads(example.text) for example in examples() if example.direction == direction]


def section(op: str) -> str:
    """What stands under the heading of a request."""
    found = re.search(rf"^### `{re.escape(op)}`$(.*?)^##", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/protocol.md has no section ### `{op}`"
    return found[1]


def downlink_ops() -> set[str]:
    """The ops that the source writes: in maps (`"op": "ok"`), in ready JSON, and by `entries._about`."""
    sources = [file for folder in DOWNLINK_SOURCES for file in (ROOT / "mqtt_im" / folder).rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in sources)
    return {told or about for told, about in re.findall(r'"op": ?"([\w.]+)"|_about\(record, b"(\w+)"', code)}


def flattened(value: Any) -> list[dict[str, Any]]:
    """A downlink with the items that it holds."""
    return [value, *value.get("items", ())]


@pytest.mark.parametrize("op", OPS)
def test_every_request_has_a_section_with_its_fields_and_an_example(op: str) -> None:
    text = section(op)
    for field in msgspec.structs.fields(OPS[op]):
        assert f"`{field.encode_name}`" in text or f'"{field.encode_name}"' in text, f"{op}: {field.encode_name} is not described"
    assert op in [example["op"] for example in examples_of("up")]


@pytest.mark.parametrize("example", [example for example in examples() if example.direction == "up"])
def test_every_uplink_example_is_a_request(example: Example) -> None:
    limits = Config().limits
    request = decode_request(example.text.encode(), limits.max_body_bytes, limits.max_packet_bytes)
    given = json.loads(example.text)
    known = {field.encode_name for field in msgspec.structs.fields(type(request))}
    assert given.keys() - {"op"} <= known, "a field that the server ignores"
    assert type(request) is OPS[given["op"]]


def test_every_downlink_has_an_example() -> None:
    told = {part["op"] for example in examples_of("down") for part in flattened(example)}
    assert downlink_ops() == told
    for op in told:
        assert f"`{op}`" in PAGE


def test_every_code_has_a_line_and_an_example() -> None:
    told = {example["code"]: example for example in examples_of("down") if example["op"] == "error"}
    assert told.keys() == set(get_args(errors.Code))
    for code, example in told.items():
        assert f"\n| `{code}` | " in PAGE
        assert example["retry"] is (code in ("rate_limited", "unavailable"))


def test_items_carry_positions_and_nothing_else_does() -> None:
    for example in examples_of("down"):
        is_item = example["op"] in ("msg", "sent", "edited", "recalled", "reacted", "report", "void", "batch")
        assert ("pos" in example) is (is_item or example["op"] == "welcome")


def test_the_rest_are_presences() -> None:
    assert [example["state"] for example in examples_of("")] == ["online", "offline"]


def test_the_pages_name_no_key_that_does_not_exist() -> None:
    for page in (PAGE, OPERATIONS):
        sections = {name.partition(".")[0] for name in KEYS if "." in name}
        for name in re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_.]+)(?: = [^`]*)?`", page):
            assert name in KEYS or name.endswith((".db", ".pem")), name
    for key in re.findall(r"`(max_[a-z_]+|[a-z_]+_s|requests_per_second)`", PAGE):
        assert f"limits.{key}" in KEYS


def test_every_metric_is_explained() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == render(), "run `make docs`"
    assert set(re.findall(r'\bshow(?:_each)?\("(\w+)"', (ROOT / "mqtt_im" / "app.py").read_text(encoding="utf-8"))) == {
        *FIGURES,
        *SUMS,
    }


def test_the_reference_of_the_client_is_what_its_docstrings_say() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.render(), "make docs writes docs/api.md anew"


def headings(page: Path) -> set[str]:
    """What a link may name behind its `#`."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_between_pages_lead_somewhere() -> None:
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        text = file.read_text(encoding="utf-8")
        for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            page = file.parent / target if target else file
            assert page.exists(), f"{file.name}: {target}"
            assert not heading or heading in headings(page), f"{file.name}: {target}#{heading}"
