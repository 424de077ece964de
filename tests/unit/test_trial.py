"""`check-config` says no to what `serve` refuses of a configuration, and in the same words; neither begins anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtt_im.cli import run

PEM = "-----BEGIN PUBLIC KEY-----\nnothing\n-----END PUBLIC KEY-----\n"
JWT = ("auth.mode=jwt", "auth.jwt.key={file}")


@pytest.mark.parametrize(
    ("content", "settings", "mistake"),
    [
        ("x" * 40, JWT, "auth.jwt.key: {file} can't be used: it is neither PEM nor a JWKS, and auth.jwt.algorithms has no HS256"),
        (PEM, JWT, "auth.jwt.key: {file} can't be used: it is no key for RS256, ES256, EdDSA"),
        ('{"keys":[]}', JWT, "auth.jwt.key: {file} can't be used: it is no JWKS"),
        ("", (*JWT, 'auth.jwt.algorithms=["HS256"]'), "auth.jwt.key: {file} can't be used: it is empty"),
        ("", ('mqtt.plugins={"no.such.Plugin" = {}}',), "mqtt.plugins: no.such.Plugin can't be imported: No module named 'no'"),
        ("", ('mqtt.plugins={"json.Plugin" = {}}',), "mqtt.plugins: json.Plugin can't be imported: module 'json' has no"),
        ("", ("files.url=file://{file}",), "files.url: {file} is no folder"),
        ("", ("files.url=s3://bucket", "files.endpoint=nonsense"), "files.url: Invalid endpoint: nonsense"),
        ("", ("store.url=postgresql://host:port/db",), "store.url: a port is a number from 1 to 65535"),
        ("", ("store.url=postgresql://host/db?nosuch=1",), "store.url: expected postgresql://user:password@host/database"),
    ],
)
def test_both_say_the_same(
    content: str, settings: tuple[str, ...], mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, data = tmp_path / "file", tmp_path / "data"
    file.write_text(content)
    given = [part for text in (f"data_dir={data}", *settings) for part in ("--set", text.replace("{file}", str(file)))]
    said = []
    for command in ("check-config", "serve"):
        assert run([command, *given]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert said[0].startswith("mqtt-im: " + mistake.format(file=file)) and said[0].count("\n") == 1
    assert not data.exists()


def test_a_good_key_and_a_good_plugin_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("x" * 40)
    settings = ("auth.mode=jwt", f"auth.jwt.key={tmp_path / 'key'}", 'auth.jwt.algorithms=["HS256"]')
    plugin = 'mqtt.plugins={"json.JSONDecoder" = {}}'
    assert run(["check-config", *(part for text in (*settings, plugin) for part in ("--set", text))]) == 0
    assert capsys.readouterr().out == "The configuration is right.\n"
