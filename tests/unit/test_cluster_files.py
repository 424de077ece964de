"""config/cluster/compose.yml fits the files beside it; that these work is shown by `system/test_cluster_example.py`."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import yaml

from mqtt_im.config import load

FOLDER = Path(__file__).parents[2] / "config" / "cluster"
NODES = ("n1", "n2", "n3")


def _compose() -> dict[str, Any]:
    text = (FOLDER / "compose.yml").read_text("utf-8")
    for name, value in (("IM_PASSWORD", "a-password"), ("STANDBY_PASSWORD", "another")):
        text = text.replace(f"${{{name}:?}}", value)
    assert "$" not in text, "what .env must set is named in its first lines"
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where in the container → what."""
    return {where: what for what, where, *_ in (entry.split(":") for entry in service["volumes"])}


def test_whatever_is_mounted_is_there() -> None:
    compose = _compose()
    for name, service in compose["services"].items():
        for what in _mounts(service).values():
            assert (FOLDER / what).is_file() if what.startswith("./") else what in compose["volumes"], (name, what)


def test_each_node_has_a_configuration_that_is_good_and_what_must_survive_in_a_volume_of_its_own() -> None:
    services = _compose()["services"]
    folders = set()
    for name in NODES:
        service = services[name]
        mounts = _mounts(service)
        (file,) = re.findall(r"exec mqtt-im serve -c (\S+)\"?", service["command"])
        file = file.rstrip('"')
        config = load(FOLDER / mounts[file].removeprefix("./"), environment=service["environment"])
        assert config.cluster.node == name
        assert config.store.url == "postgresql://im:a-password@db1,db2/im"
        folders.add(mounts[config.data_dir])
        assert config.limits.drain_s < int(service["stop_grace_period"].removesuffix("s"))
        assert config.mqtt.bind.startswith("0.0.0.0:") and config.http.bind.startswith("0.0.0.0:")
    assert len(folders) == len(NODES)


def test_haproxy_is_where_nodes_believe_it_and_finds_them_at_their_ports() -> None:
    compose = _compose()
    config = load(FOLDER / "node.toml", environment={})
    subnet = ipaddress.ip_network(compose["networks"]["default"]["ipam"]["config"][0]["subnet"])
    assert any(subnet.subnet_of(ipaddress.ip_network(known)) for known in config.http.trusted_proxies)  # type: ignore[arg-type]
    text = (FOLDER / "haproxy.cfg").read_text("utf-8")
    ports = {config.mqtt.bind.rpartition(":")[2], config.http.bind.rpartition(":")[2]}
    assert set(re.findall(r"server (n\d) \1:(\d+)", text)) == {(name, port) for name in NODES for port in ports}
    assert set(compose["services"]["haproxy"]["depends_on"]) == set(NODES)
    published = {entry.rpartition(":")[2] for entry in compose["services"]["haproxy"]["ports"]}
    assert published == set(re.findall(r"bind :(\d+)", text))


def test_the_scripts_of_the_databases_find_what_they_ask_for() -> None:
    services = _compose()["services"]
    for name, file in (("db1", "primary.sh"), ("db2", "standby.sh")):
        assert os.access(FOLDER / file, os.X_OK)  # else the image would source it
        asked = set(re.findall(r"\$\{?([A-Z_]+)\b", (FOLDER / file).read_text("utf-8")))
        given = set(services[name]["environment"])
        assert asked - given - {"PGDATA", "POSTGRES_USER", "PRIMARY_PORT"} == set(), name
    assert services["db2"]["environment"]["PRIMARY_HOST"] == "db1"
    assert services["db2"]["environment"]["PGDATA"] in _mounts(services["db2"])
    assert "/var/lib/postgresql/data" in _mounts(services["db1"])  # where the image has PGDATA
