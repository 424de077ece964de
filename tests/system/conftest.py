"""One running server for each file of tests; a file that needs another configuration names it in `CONFIG`.

Every test uses names of its own (`name`), so tests of one file do not meet. Each server ends with a clean stop and with
`store check`, which verifies the promises on everything that the file's tests have stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mqtt_im.store.sqlite.check import check
from mqtt_im.testing import ServerProcess, Value
from tests.support.faults import assert_no_fault
from tests.support.im import ImClient
from tests.support.nodes import Nodes, new_nodes
from tests.support.postgres import Cluster
from tests.support.web import Web

Name = Callable[[str], str]
Login = Callable[[str], Web]


class Clients:
    """Makes clients of one server and closes them when the test is over."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.made: list[ImClient] = []

    def socket(self, user: str, device: str = "phone", *, port: int | None = None, **options: Any) -> ImClient:
        """A client that has not sent anything yet."""
        client = ImClient(port or self.server.mqtt_port, user, device, **options)
        self.made.append(client)
        return client

    def sign_in(self, user: str, device: str = "phone", *, port: int | None = None, **options: Any) -> ImClient:
        """A connected client without subscriptions."""
        return self.socket(user, device, port=port).sign_in(**options)

    def online(self, user: str, device: str = "phone", *, port: int | None = None, **options: Any) -> ImClient:
        """A connected client, subscribed to both of its down topics at QoS 1 where it has no kept subscription."""
        client = self.sign_in(user, device, port=port, **options)
        return client if client.session_present else client.listen()

    def close(self) -> None:
        for client in self.made:
            client.close()


def verified(server: ServerProcess) -> None:
    """The stored data keeps the promises (what `store check` says), and the server has met no fault of its own."""
    report = check(server.data_dir)
    assert not report.problems, "\n".join(report.problems)
    assert_no_fault(server.log())


def running(config: dict[str, Value]) -> Iterator[ServerProcess]:
    """A started server, which must stop with exit code 0 and leave its data in order."""
    with ServerProcess(config) as server:
        yield server
        if server.running:
            assert server.stop() == 0, server.log()
        verified(server)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    yield from running(getattr(request.module, "CONFIG", {}))


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server for this test alone, parametrized indirectly with what to add to its configuration; it ends by SIGKILL."""
    with ServerProcess({**getattr(request.module, "CONFIG", {}), **getattr(request, "param", {})}) as server:
        yield server
        server.kill()
        verified(server)


@pytest.fixture
def im(server: ServerProcess) -> Iterator[Clients]:
    clients = Clients(server)
    yield clients
    clients.close()


@pytest.fixture
def web(server: ServerProcess) -> Iterator[Login]:
    """Logs users in over HTTP."""
    made: list[Web] = []

    def login(user: str) -> Web:
        made.append(Web(server.http_port))
        return made[-1].login(user)

    yield login
    for client in made:
        client.close()


@pytest.fixture
def own_im(own_server: ServerProcess) -> Iterator[Clients]:
    clients = Clients(own_server)
    yield clients
    clients.close()


@pytest.fixture
def name() -> Name:
    """Names that no other test uses: `name("alice")`, the same one for the same word within a test; `name("#ops")` for groups."""
    token = uuid.uuid4().hex[:8]
    return lambda word: f"{word}-{token}"


@pytest.fixture
def nodes(postgres: Cluster) -> Iterator[Nodes]:
    """A database of this test's own, on which it starts nodes."""
    with new_nodes(postgres) as nodes:
        yield nodes
