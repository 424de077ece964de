"""Several real servers on one database."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mqtt_im.testing import ServerProcess
from tests.support.im import ImClient


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
