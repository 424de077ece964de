"""`[mqtt.plugins]`: amqtt's plugins in the whole program, from the file to what clients meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.faults import assert_no_fault
from tests.support.im import ImClient
from tests.support.raw import Refused

ROOT = str(Path(__file__).parents[2])
PLUGINS = """
[mqtt.plugins."tests.support.plugins.Bouncer"]
refused = ["mallory"]
[mqtt.plugins."tests.support.plugins.Owners"]
root = "desk"
"""


def test_authentication_and_topic_plugins_have_their_say() -> None:
    with ServerProcess({"mqtt.plain_topics": ["desk/#"]}, environment={"PYTHONPATH": ROOT}) as server:
        server.stop()
        with server.config_file.open("a", encoding="utf-8") as file:
            file.write(PLUGINS)
        server.start()
        with pytest.raises(Refused) as refused, ImClient(server.mqtt_port, "mallory") as mallory:
            mallory.sign_in()
        assert refused.value.code == 5
        with ImClient(server.mqtt_port, "alice") as alice, ImClient(server.mqtt_port, "bob") as bob:
            alice.sign_in().listen()
            bob.sign_in().listen()
            assert bob.subscribe("desk/#") == [1]
            alice.publish("desk/bob", b"not hers")
            alice.publish("desk/alice", b"hers")
            bob.until(lambda: bob.plain, "the one that is allowed")
            assert [each.payload for each in bob.plain] == [b"hers"]
            # Messaging is none of their business.
            alice.say("bob", "hello")
            assert bob.wait("msg")["body"] == "hello"
        assert_no_fault(server.log())


@pytest.mark.parametrize(
    ("table", "complaint", "code"),
    [
        ('"no.such.Plugin" = {}', "no.such.Plugin", 2),  # known without a start
        ('"tests.support.plugins.Owners" = {nonsense = 1}', "nonsense", 1),
        ('"pathlib.Path" = {}', "pathlib.Path", 1),
    ],
)
def test_a_plugin_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, table: str, complaint: str, code: int) -> None:
    file = tmp_path / "mqtt-im.toml"
    nowhere = '"127.0.0.1:0"'
    file.write_text(
        f'data_dir = "{tmp_path}/data"\nauth.mode = "open"\nmqtt.bind = {nowhere}\nwebsocket.bind = {nowhere}\n'
        f'http.bind = ""\n[mqtt.plugins]\n{table}\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "mqtt_im", "serve", "-c", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code
    last = done.stderr.splitlines()[-1]
    assert "mqtt.plugins: " in last
    assert complaint in last
    assert "Traceback" not in done.stderr
