"""Plain topics over several nodes: who publishes at one reaches who subscribes at another, whatever is killed meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support import packets5
from tests.support.faults import assert_no_fault
from tests.support.im import ImClient
from tests.support.im5 import Im5
from tests.support.nodes import Nodes, unharmed_nodes
from tests.support.packets import Will
from tests.support.postgres import Cluster
from tests.support.raw import eventually

pytestmark = pytest.mark.slow
OPEN = {"mqtt.plain_topics": ["open/#"]}


@pytest.fixture(scope="module")
def trio(postgres: Cluster) -> Iterator[Nodes]:
    """Three nodes that the tests of this file share, which harm none."""
    with unharmed_nodes(postgres, 3, **OPEN) as nodes:
        yield nodes


def bodies(client: ImClient, topic: str) -> list[bytes]:
    return [publish.payload for publish in client.plain if publish.topic == topic]


def wait(client: ImClient, topic: str, wanted: list[bytes], timeout_s: float = 20) -> None:
    """It gets exactly this, in this order."""
    client.until(lambda: len(bodies(client, topic)) >= len(wanted), f"{len(wanted)} on {topic}", timeout_s)
    assert bodies(client, topic) == wanted


class Member(Im5):
    """A client of a shared subscription, of whom also what came to it before it was cut off is asked for."""

    def __init__(self, nodes: Nodes, node: int, user: str, *, kept: bool = False) -> None:
        given = {packets5.SESSION_EXPIRY: 3600} if kept else {}
        super().__init__(nodes.all[node].mqtt_port, user, clean=not kept, given=given)

    def take(self) -> list[bytes]:
        try:
            self.settle()
        except (AssertionError, OSError):
            self.closed = True
        return [message.payload for message in self.came]


def settle(client: ImClient) -> None:
    """What was to come before has come, and what it has acknowledged is known."""
    client.unsubscribe("open/nothing")


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def test_a_client_without_a_client_id_is_let_in(trio: Nodes) -> None:
    """As mosquitto_pub is: nothing is kept under such a name, here or at another node, and two of them never meet."""
    one, two = (trio.client(node, "unnamed", client_id="", will=Will("open/will", b"of one", 1)) for node in (0, 0))
    subscriber = trio.client(1, "unnamed", client_id="")
    assert subscriber.subscribe("open/+") == [1]
    two.publish("open/said", b"by two", qos=1)
    wait(subscriber, "open/said", [b"by two"])
    one.close()
    wait(subscriber, "open/will", [b"of one"])
    two.publish("open/said", b"again", qos=1)
    wait(subscriber, "open/said", [b"by two", b"again"])


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("clean", [True, False])
def test_what_is_published_at_one_node_reaches_others_once_in_order(trio: Nodes, qos: int, clean: bool) -> None:
    topic = f"open/order/{qos}/{clean}"
    subscribers = [trio.client(node, f"sub{node}{qos}{clean}", clean=clean) for node in range(3)]
    for subscriber in subscribers:
        assert subscriber.subscribe((topic, 2)) == [2]
    publisher = trio.client(0, f"pub{qos}{clean}")
    for number in range(50):
        publisher.publish(topic, b"%d" % number, qos=qos)
    for subscriber in subscribers:
        wait(subscriber, topic, numbers(0, 50))
        assert {publish.qos for publish in subscriber.plain} == {qos}
        subscriber.disconnect()


def test_wildcards_and_unsubscribing(trio: Nodes) -> None:
    one, two = trio.client(1, "wild1"), trio.client(1, "wild2")
    assert one.subscribe(("open/wild/+/x", 1)) == [1]
    assert two.subscribe(("open/wild/#", 1)) == [1]
    publisher = trio.client(2, "wildpub")
    publisher.publish("open/wild/a/x", b"1", qos=1)
    wait(one, "open/wild/a/x", [b"1"])
    wait(two, "open/wild/a/x", [b"1"])
    one.unsubscribe("open/wild/+/x")
    publisher.publish("open/wild/a/x", b"2", qos=1)
    wait(two, "open/wild/a/x", [b"1", b"2"])
    settle(one)
    assert bodies(one, "open/wild/a/x") == [b"1"]


def test_a_large_message(trio: Nodes) -> None:
    body = bytes(range(256)) * 900
    for clean in (True, False):
        subscriber = trio.client(1, f"large{clean}", clean=clean)
        assert subscriber.subscribe(("open/large", 1)) == [1]
        trio.client(0, f"largepub{clean}").publish("open/large", body, qos=1)
        wait(subscriber, "open/large", [body])
        subscriber.disconnect()


def test_a_kept_session_gets_at_another_node_what_it_has_missed(trio: Nodes) -> None:
    subscriber = trio.client(0, "moving", clean=False)
    assert subscriber.subscribe(("open/moving", 1)) == [1]
    publisher = trio.client(2, "movingpub")
    publisher.publish("open/moving", b"0", qos=1)
    wait(subscriber, "open/moving", [b"0"])
    settle(subscriber)
    subscriber.disconnect()
    for number in range(1, 20):
        publisher.publish("open/moving", b"%d" % number, qos=1)
    publisher.until(lambda: len(publisher.pubacks) >= 20, "all PUBACKs")
    subscriber = trio.client(1, "moving", clean=False)
    assert subscriber.session_present
    wait(subscriber, "open/moving", numbers(1, 20))
    for number in range(20, 30):
        publisher.publish("open/moving", b"%d" % number, qos=1)
    wait(subscriber, "open/moving", numbers(1, 30))
    now = trio.client(2, "moving", clean=False)  # taken over, and published beside
    publisher.publish("open/moving", b"30", qos=1)
    now.until(lambda: b"30" in bodies(now, "open/moving"), "the last one")


def test_retained_messages_are_of_all_nodes(trio: Nodes) -> None:
    publisher = trio.client(0, "retaining")
    for number in range(20):
        publisher.publish("open/kept/state", b"%d" % number, qos=1, retain=True)
        publisher.until(lambda number=number: len(publisher.pubacks) > number, "PUBACK")  # type: ignore[misc]
        reader = trio.client(1 + number % 2, f"reader{number}")
        assert reader.subscribe(("open/kept/#", 1)) == [1]
        wait(reader, "open/kept/state", [b"%d" % number])
        assert reader.plain[-1].retain
    publisher.publish("open/kept/state", b"", qos=1, retain=True)
    publisher.until(lambda: len(publisher.pubacks) > 20, "PUBACK")
    reader = trio.client(2, "lastreader")
    assert reader.subscribe(("open/kept/#", 1)) == [1]
    settle(reader)
    assert not reader.plain


@pytest.mark.parametrize("qos", [0, 1])
def test_a_shared_message_goes_to_one_member_of_all_nodes(trio: Nodes, qos: int) -> None:
    topic = f"open/share{qos}"
    with ExitStack() as undo:
        members = [undo.enter_context(Member(trio, node, f"m{qos}{node}{number}")) for node in (0, 1, 2) for number in (0, 1)]
        for member in members:
            assert member.subscribe((f"$share/g/{topic}", 1)) == [1]
        publisher = trio.client(1, f"sharer{qos}")
        for number in range(60):
            publisher.publish(topic, b"%d" % number, qos=qos)
        eventually(lambda: sum(len(member.take()) for member in members) >= 60, "all of them")
        found = sorted(payload for member in members for payload in member.take())
        assert found == sorted(numbers(0, 60))
        by_node = [sum(len(member.take()) for member in members[node : node + 2]) for node in (0, 2, 4)]
        assert by_node == [20, 20, 20]


def test_a_shared_message_waits_for_a_kept_member_and_goes_to_another_where_a_node_is_killed(nodes: Nodes) -> None:
    for _ in range(3):
        nodes.start(**OPEN)
    away = Member(nodes, 1, "away", kept=True)
    assert away.subscribe(("$share/g/open/#", 1)) == [1]
    away.close()
    publisher = nodes.client(0, "publisher")
    for number in range(20):
        publisher.publish("open/x", b"%d" % number, qos=1)
    publisher.until(lambda: len(publisher.pubacks) >= 20, "all PUBACKs")
    with Member(nodes, 2, "away", kept=True) as away, Member(nodes, 1, "other") as other:
        eventually(lambda: sorted(away.take()) == sorted(numbers(0, 20)), "what has waited")
        assert other.subscribe(("$share/g/open/#", 1)) == [1]
        for number in range(20, 40):
            publisher.publish("open/x", b"%d" % number, qos=1)
        nodes.all[1].kill()
        for number in range(40, 60):
            publisher.publish("open/x", b"%d" % number, qos=1)
        publisher.until(lambda: len(publisher.pubacks) >= 60, "all PUBACKs")
        other_got = other.take()
        eventually(lambda: set(numbers(40, 60)) <= {*away.take(), *other_got}, "what the dead one has not got", timeout_s=20)


def test_a_killed_publisher_node_loses_nothing_that_was_acknowledged(nodes: Nodes) -> None:
    for _ in range(3):
        nodes.start(**OPEN)
    kept, away = nodes.client(1, "kept", clean=False), nodes.client(1, "away", clean=False)
    for each in (kept, away):
        assert each.subscribe(("open/#", 1)) == [1]
    away.disconnect()
    will = Will("open/will", b"gone", qos=1)
    publisher = nodes.client(0, "publisher", will=will)
    for number in range(100):
        publisher.publish("open/x", b"%d" % number, qos=1)
    publisher.until(lambda: len(publisher.pubacks) >= 60, "PUBACKs")
    nodes.all[0].kill()
    acknowledged = len(publisher.pubacks)
    wanted = numbers(0, acknowledged)
    kept.until(lambda: set(wanted) <= set(bodies(kept, "open/x")), "what was acknowledged", 20)
    away = nodes.client(2, "away", clean=False)
    away.until(lambda: set(wanted) <= set(bodies(away, "open/x")), "what was acknowledged", 20)
    for each in (kept, away):
        found = bodies(each, "open/x")
        assert found == numbers(0, len(found))
        each.until(lambda each=each: bodies(each, "open/will") == [b"gone"], "the will", 20)  # type: ignore[misc]


def test_a_killed_subscriber_node_and_a_frozen_one(nodes: Nodes) -> None:
    for _ in range(3):
        nodes.start(**OPEN)
    kept = nodes.client(1, "kept", clean=False)
    assert kept.subscribe(("open/#", 1)) == [1]
    publisher = nodes.client(0, "publisher")
    for number in range(50):
        publisher.publish("open/x", b"%d" % number, qos=1)
    nodes.all[1].kill()
    for number in range(50, 100):
        publisher.publish("open/x", b"%d" % number, qos=1)
    publisher.until(lambda: len(publisher.pubacks) >= 100, "all PUBACKs")
    seen: list[bytes] = []
    while True:
        try:
            kept.until(lambda: False, "nothing", 0.2)
        except Exception:  # noqa: BLE001 - it is closed
            break
    seen = bodies(kept, "open/x")
    kept = nodes.client(2, "kept", clean=False)
    assert kept.session_present
    kept.until(lambda: set(numbers(0, 100)) <= {*seen, *bodies(kept, "open/x")}, "all of them", 20)
    nodes.all[2].signal(signal.SIGSTOP)
    try:
        for number in range(100, 120):
            publisher.publish("open/x", b"%d" % number, qos=1)
        publisher.until(lambda: len(publisher.pubacks) >= 120, "PUBACKs beside a frozen node")
        other = nodes.client(0, "other")
        assert other.subscribe(("open/#", 1)) == [1]  # waits until that one is dead, and no longer
        publisher.publish("open/y", b"y", qos=1)
        wait(other, "open/y", [b"y"])
        kept = nodes.client(0, "kept", clean=False)
        kept.until(lambda: b"119" in bodies(kept, "open/x"), "what was published beside", 20)
    finally:
        nodes.all[2].signal(signal.SIGCONT)


def test_a_database_that_is_restarted(own_postgres: Cluster) -> None:
    with ExitStack() as undo:
        nodes = Nodes(own_postgres.url(own_postgres.create()), undo)
        for _ in range(2):
            nodes.start(**OPEN)
        kept = nodes.client(1, "kept", clean=False)
        assert kept.subscribe(("open/#", 1)) == [1]
        clean = nodes.client(1, "clean")
        assert clean.subscribe(("open/#", 1)) == [1]
        own_postgres.kill()
        own_postgres.start()
        for node in nodes.all:
            eventually(node.ready, "ready again", timeout_s=20)
        clean.until_closed()  # it may have missed something
        clean = nodes.client(1, "clean")
        assert clean.subscribe(("open/#", 1)) == [1]
        publisher = nodes.client(0, "publisher")
        for number in range(20):
            publisher.publish("open/x", b"%d" % number, qos=1)
        for each in (kept, clean):
            wait(each, "open/x", numbers(0, 20))
        for node in nodes.all:
            assert_no_fault(node.log())
