"""What importing the client library costs: it is for small programs, and knows nothing of the server."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
private = lambda: sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private"))
memory = private()
import mqtt_im.client, mqtt_im.client.sync, mqtt_im.client.store.sqlite
print(private() - memory)
print(*sorted(sys.modules))
"""


def test_importing_it_is_cheap_and_brings_no_server() -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    private_kb, names = out.splitlines()
    assert int(private_kb) < 15_000
    modules = names.split()
    assert "mqtt_im.protocol.names" in modules
    ours = {name.split(".")[1] for name in modules if name.startswith("mqtt_im.")}
    assert ours == {"client", "protocol"}
    assert not {"amqtt", "starlette", "uvicorn", "typer", "prometheus_client", "pwdlib"} & set(modules)
