"""Several real nodes on one PostgreSQL: one order, one take-over, one presence; and what happens when one of them goes."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.faults import assert_no_fault
from tests.support.im import PREFIX
from tests.support.im5 import Im5
from tests.support.nodes import Nodes, unharmed_nodes
from tests.support.packets import Will
from tests.support.postgres import Cluster
from tests.support.raw import Refused, eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(postgres: Cluster) -> Iterator[Nodes]:
    """Two nodes that the tests of this file share, which harm neither."""
    with unharmed_nodes(postgres, 2) as nodes:
        yield nodes


def test_messages_pass_between_nodes_in_one_order(pair: Nodes) -> None:
    alice, bob = pair.online(0, "alice1"), pair.online(1, "bob1")
    for number in range(20):
        alice.say("bob1", number)
        bob.say("alice1", -number)
    for client in (alice, bob):
        client.until(lambda client=client: len(client.items) >= 40, "all items")  # type: ignore[misc]
        assert [item["pos"] for item in client.items] == list(range(1, 41))
        assert [item["seq"] for item in client.items] == list(range(1, 41))


def test_a_device_is_taken_over_by_a_connection_to_another_node(pair: Nodes) -> None:
    alice = pair.online(0, "alice2")
    former = pair.online(0, "bob2", clean=False)
    alice.say("bob2", "one")
    former.wait("msg", body="one")
    now = pair.client(1, "bob2", clean=False)
    assert now.session_present
    former.until_closed()
    alice.say("bob2", "two")
    now.wait("msg", body="two")
    back = pair.client(0, "bob2", clean=False)
    now.until_closed()
    alice.say("bob2", "three")
    back.wait("msg", body="three")
    assert [item["body"] for item in back.items if item.op == "msg"][-1] == "three"


def test_presence_and_typing_pass_between_nodes(pair: Nodes) -> None:
    alice, bob = pair.online(0, "alice3"), pair.online(1, "bob3")
    alice.say("bob3", "hi")
    bob.wait("msg", body="hi")
    assert alice.subscribe(bob.presence_topic) == [1]
    states: Callable[[], list[bytes]] = lambda: [p.payload for p in alice.plain if p.topic == bob.presence_topic]  # noqa: E731
    alice.until(lambda: states() and b"online" in states()[-1], "online")
    bob.request("typing", qos=0, to="alice3", on=True)
    alice.wait("typing", conv="alice3:bob3", on=True)
    bob.disconnect()
    alice.until(lambda: b"offline" in states()[-1], "offline")
    bob = pair.online(1, "bob3")
    alice.until(lambda: b'"online"' in states()[-1], "online again")
    seq = bob.ask("history", conv="alice3:bob3")["items"][-1]["seq"]
    bob.request("read", conv="alice3:bob3", seq=seq)
    alice.wait("receipt", conv="alice3:bob3", by="bob3", read=seq)


def test_an_edit_at_one_node_is_seen_at_another(pair: Nodes) -> None:
    alice, bob = pair.online(0, "alice4"), pair.online(1, "bob4")
    seq = alice.say("bob4", "frist")["seq"]
    bob.wait("msg", body="frist")
    alice.must("edit", conv="alice4:bob4", seq=seq, body="first")
    bob.wait("edited", seq=seq, body="first")


def test_accounts_are_of_all_nodes(nodes: Nodes) -> None:
    for _ in range(2):
        nodes.start(**{"auth.mode": "accounts"})
    first, second = nodes.all
    assert first.command("user", "add", "alice", "--password-stdin", stdin="correct horse\n").returncode == 0
    client = nodes.online(1, "alice", password="correct horse")
    assert second.command("user", "list").stdout.startswith("alice\t")
    assert first.command("user", "remove", "alice").returncode == 0
    client.until_closed()


def test_a_killed_node_takes_nothing_with_it(nodes: Nodes) -> None:
    for _ in range(3):
        nodes.start()
    alice, bob = nodes.online(0, "alice"), nodes.online(1, "bob", clean=False)
    will = Will(f"{PREFIX}/carl/phone/up", b'{"op": "send", "id": "w", "to": "alice", "body": "last words"}', qos=1)
    nodes.client(1, "carl", will=will)
    alice.say("bob", 0)
    bob.wait("msg", body=0)
    assert alice.subscribe(bob.presence_topic) == [1]
    nodes.all[1].kill()
    bob.until_closed()
    alice.say("bob", 1)
    bob = nodes.client(2, "bob", clean=False)
    assert bob.session_present
    bob.wait("msg", body=1)
    bob.disconnect()
    states: Callable[[], list[bytes]] = lambda: [p.payload for p in alice.plain if p.topic == bob.presence_topic]  # noqa: E731
    alice.until(lambda: states() and b"offline" in states()[-1], "offline", 20)
    alice.wait("msg", body="last words")  # another node fires it, once
    nodes.all[1].start()  # the same folder: it takes its place at once
    bob = nodes.client(1, "bob", clean=False)
    alice.say("bob", 2)
    bob.wait("msg", body=2)
    assert len([item for item in alice.items if item.op == "msg" and item["body"] == "last words"]) == 1


def test_a_frozen_node_can_write_nothing_more(nodes: Nodes) -> None:
    for _ in range(2):
        nodes.start()
    alice, bob = nodes.online(0, "alice"), nodes.online(1, "bob", clean=False)
    alice.say("bob", 0)
    bob.wait("msg", body=0)
    nodes.all[1].signal(signal.SIGSTOP)
    try:
        eventually(lambda: "a node is gone" in nodes.all[0].log(), "the frozen node is declared dead")
        now = nodes.client(0, "bob", clean=False)
        alice.say("bob", 1)
        now.wait("msg", body=1)
        bob.request("send", id="late", to="alice", body="never")  # the frozen node has it in its socket
    finally:
        nodes.all[1].signal(signal.SIGCONT)
    bob.until_closed()
    eventually(lambda: "declared dead" in nodes.all[1].log(), "it has noticed")
    eventually(nodes.all[1].ready, "it is a node again")
    assert not [item for item in now.items if item.op == "msg" and item["body"] == "never"]
    carl = nodes.online(1, "carl")
    carl.say("bob", 2)
    now.wait("msg", body=2)


def test_a_second_node_of_a_living_name_ends(nodes: Nodes) -> None:
    nodes.start()
    double = ServerProcess({"store.url": nodes.url, "cluster.node": "n1"})
    with double._temporary:
        ended = double.command("serve")
    assert ended.returncode == 1
    assert (
        ended.stderr.strip()
        .splitlines()[-1]
        .endswith("cluster.node: a node named n1 runs already; give each node a name of its own")
    )


def test_a_stopping_node_sends_its_clients_on(nodes: Nodes) -> None:
    for _ in range(2):
        nodes.start(**{"cluster.server_reference": "other.example:1883"})
    bob = nodes.online(0, "bob", clean=False)
    assert nodes.all[0].stop() == 0
    bob.until_closed()
    now = nodes.client(1, "bob", clean=False)
    assert now.session_present


def test_a_database_that_is_gone_and_comes_back(own_postgres: Cluster) -> None:
    with ExitStack() as undo:
        nodes = Nodes(own_postgres.url(own_postgres.create()), undo)
        node = nodes.start()
        alice = nodes.online(0, "alice")
        alice.say("alice", 0)
        own_postgres.freeze()
        eventually(lambda: node.get("/health/ready")[0] == 503, "not ready")
        assert node.get("/health/live")[0] == 200
        with pytest.raises(Refused, match="3"):
            nodes.client(0, "bob")
        with Im5(node.mqtt_port, "bob") as five:
            assert five.connack.code == 0x88
        alice.until_closed()
        own_postgres.thaw()
        eventually(node.ready, "ready again")
        own_postgres.kill()
        eventually(lambda: not node.ready(), "not ready")
        own_postgres.start()
        eventually(node.ready, "ready again")
        nodes.online(0, "alice").say("alice", 1)


def test_a_start_waits_for_the_database(own_postgres: Cluster) -> None:
    with ExitStack() as undo:
        nodes = Nodes(own_postgres.url(own_postgres.create()), undo)
        own_postgres.stop()
        node = ServerProcess({"store.url": nodes.url})
        undo.callback(node.close)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(node, "ready", lambda: _live(node))
            node.start()
        assert node.get("/health/ready")[0] == 503
        eventually(lambda: "waiting for the database" in node.log(), "a line in the log")
        own_postgres.start()
        eventually(node.ready, "ready")


def _live(node: ServerProcess) -> bool:
    try:
        return node.get("/health/live")[0] == 200
    except OSError:
        return False


def test_a_token_is_good_at_every_node(nodes: Nodes) -> None:
    for _ in range(2):
        nodes.start(**{"auth.mode": "accounts"})
    first, second = nodes.all
    for name in ("alice", "bob"):
        assert first.command("user", "add", name, "--password-stdin", stdin="correct horse\n").returncode == 0
    token = first.command("user", "token", "alice").stdout.strip()
    for number, node in enumerate((second, first)):
        assert _send(node, token, number) == 200
    assert _send(second, "mqim_wrong", 3) == 401
    assert first.command("user", "passwd", "alice", "--password-stdin", stdin="another horse\n").returncode == 0
    eventually(lambda: _send(second, token, 4) == 401, "the token is void at the other node too")


def _send(node: ServerProcess, token: str, number: int) -> int:
    request = urllib.request.Request(
        f"http://{node.host}:{node.http_port}/api/v1/send",
        json.dumps({"to": "bob", "body": "hi", "id": f"t{number}"}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_new_epoch_is_told_by_all_nodes_at_once(nodes: Nodes) -> None:
    """Nobody has to restart them: clients are sent away, and meet the new epoch, and the store as it is, where they come next."""
    for _ in range(2):
        nodes.start()
    clients = [nodes.online(node, user, clean=False) for node, user in enumerate(("alice", "bob"))]
    epochs = {client.must("hello")["epoch"] for client in clients}
    clients[0].say("bob", 1)
    clients[1].wait("msg", body=1)
    done = nodes.all[0].command("store", "new-epoch")
    assert done.returncode == 0 and "have not" not in done.stdout, done
    for client in clients:
        client.until_closed()
    for node, user in enumerate(("bob", "alice")):
        client = nodes.client(node, user, clean=False)
        welcome = client.must("hello")
        assert f"the epoch is {welcome['epoch']} now" in done.stdout and welcome["epoch"] not in epochs
        client.say("bob", user)
    for server in nodes.all:
        eventually(server.ready, "it is a node again")
        assert "the store has a new epoch" in server.log(), server.log()
        assert_no_fault(server.log())
    assert nodes.all[1].command("store", "check").returncode == 0


def test_nothing_that_others_need_is_in_a_data_dir(nodes: Nodes) -> None:
    """A node is gone for good, with its folder; one that has never been there before takes its place."""
    config = {"auth.mode": "accounts", "mqtt.plain_topics": ["open/#"]}
    lost = nodes.start(**config)
    for name in ("alice", "bob"):
        assert lost.command("user", "add", name, "--password-stdin", stdin="correct horse\n").returncode == 0
    token = lost.command("user", "token", "alice").stdout.strip()
    alice = nodes.online(0, "alice", password="correct horse")
    bob = nodes.online(0, "bob", password="correct horse", clean=False)
    assert bob.subscribe(("open/news", 1)) == [1]
    alice.publish("open/kept", b"retained", retain=True)
    alice.must("group.create", group="#g", members=["bob"])
    bob.disconnect()
    alice.say("bob", "while you were away", id="one", n=1)
    alice.confirmed("send", to="#g", body="you all", id="two")
    alice.publish("open/news", b"news")
    alice.acknowledged(5)
    lost.kill()
    new = nodes.start(**config)
    alice = nodes.online(1, "alice", password=token)
    alice.request("send", to="bob", body="while you were away", id="one", n=1)
    alice.wait("sent", id="one", dup=True)  # the item of the first one may come again before: that she had it was not on disk
    bob = nodes.client(1, "bob", password="correct horse", clean=False)
    assert bob.session_present
    bob.wait("msg", body="you all")
    bob.until(lambda: [p.payload for p in bob.plain] == [b"news"], "what was published while it was away")
    assert bob.subscribe(("open/kept", 1)) == [1]
    bob.until(lambda: bob.plain[1:] and bob.plain[1].payload == b"retained", "what is retained")
    assert [item["pos"] for item in bob.items] == [1, 2, 3]
    assert new.stop() == 0
    assert_no_fault(new.log())


def test_whoever_changes_a_password_at_one_node_closes_connections_at_all(nodes: Nodes) -> None:
    for _ in range(2):
        nodes.start(**{"auth.mode": "accounts"})
    first, second = nodes.all
    assert first.command("user", "add", "alice", "--password-stdin", stdin="correct horse\n").returncode == 0
    with Im5(second.mqtt_port, "alice", password="correct horse") as five:
        assert first.command("user", "passwd", "alice", "--password-stdin", stdin="another horse\n").returncode == 0
        assert five.goodbye() == 0x98
    with pytest.raises(Refused, match="4"):
        nodes.client(1, "alice", password="correct horse")
    nodes.client(1, "alice", password="another horse")
