"""Several real servers on one database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mqtt_im.testing import ServerProcess
from tests.support.faults import assert_no_fault
from tests.support.im import ImClient
from tests.support.postgres import Cluster, new_database


class Nodes:
    """Servers on one database, and clients of them."""

    def __init__(self, url: str, undo: ExitStack) -> None:
        self.url = url
        self._undo = undo
        self.all: list[ServerProcess] = []

    def start(self, **config: Any) -> ServerProcess:
        """One node more."""
        name = f"n{len(self.all) + 1}"
        server = ServerProcess({"store.url": self.url, "cluster.node": name, "limits.drain_s": 2, **config})
        self._undo.callback(server.close)
        self.all.append(server)
        server.start()
        return server

    def client(self, node: int, user: str, device: str = "phone", **options: Any) -> ImClient:
        """Connected to that node, not subscribed."""
        client = ImClient(self.all[node].mqtt_port, user, device)
        self._undo.callback(client.close)
        return client.sign_in(**options)

    def online(self, node: int, user: str, device: str = "phone", **options: Any) -> ImClient:
        """Connected to that node, with its delivery."""
        return self.client(node, user, device, **options).listen()


@contextmanager
def new_nodes(postgres: Cluster, count: int = 0, **config: Any) -> Iterator[Nodes]:
    """Nodes on a new, empty database: so many of them run."""
    with new_database(postgres) as url, ExitStack() as undo:
        nodes = Nodes(url, undo)
        for _ in range(count):
            nodes.start(**config)
        yield nodes


@contextmanager
def unharmed_nodes(postgres: Cluster, count: int, **config: Any) -> Iterator[Nodes]:
    """The same for tests that harm none: each stops with exit code 0, and has met no fault of its own."""
    with new_nodes(postgres, count, **config) as nodes:
        yield nodes
        for node in nodes.all:
            assert node.stop() == 0, node.log()
            assert_no_fault(node.log())
