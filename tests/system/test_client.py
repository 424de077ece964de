"""The client library against a real server: what an app sees of it when nothing goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mqtt_im.client import (
    Client,
    Edited,
    Offline,
    OutboxFull,
    Outgoing,
    Presence,
    Reacted,
    Recalled,
    Receipt,
    Reported,
    RequestFailed,
    SendFailed,
    StoreInUse,
    StoreUnusable,
    Typing,
    sync,
)
from mqtt_im.testing import ServerProcess
from tests.support.clients import PATIENCE_S, event, following, run, take
from tests.system.conftest import Name


class Clients:
    """Clients of one server, each with a store of its own."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.url = f"mqtt://127.0.0.1:{server.mqtt_port}"

    def __call__(self, user: str, **options: Any) -> Client:
        return Client(options.pop("url", self.url), **{"user": user, "store": self.folder / f"{user}.db", **options})


@pytest.fixture
def client(server: ServerProcess, tmp_path: Path) -> Clients:
    return Clients(server, tmp_path)


async def said(im: Client, to: str, body: Any, **fields: Any) -> Outgoing:
    return await (await im.send(to, body, **fields)).sent(PATIENCE_S)


@pytest.mark.parametrize("fields", [{"n": 5}, {"op": "recall"}, {"id": ""}, {"id": "x" * 65}, {"ttl": 0}])
def test_what_can_not_be_a_field_is_refused_and_holds_up_nothing(client: Clients, name: Name, fields: dict[str, Any]) -> None:
    async def main() -> None:
        alice = name("alice")
        async with client(alice) as a:
            with pytest.raises(ValueError, match=next(iter(fields))):
                await a.send(alice, "never", **fields)
            assert (await said(a, alice, "next")).seq == 1

    run(main)


def test_a_message_goes_from_one_app_to_the_other(client: Clients, name: Name) -> None:
    async def main() -> None:
        alice, bob = name("alice"), name("bob")
        async with client(alice) as a, client(bob) as b:
            sent = await a.send(bob, {"text": "hi", "raw": b"\0\xff"})
            assert sent.state == "queued"
            await sent.sent(PATIENCE_S)
            assert (sent.state, sent.conv, sent.seq) == ("sent", f"{alice}:{bob}", 1)
            assert isinstance(sent.ts, int)
            (message,) = await take(b, 1)
            assert message.body == {"text": "hi", "raw": b"\0\xff"}
            assert (message.sender, message.conv, message.seq, message.pos) == (alice, sent.conv, 1, 1)
            assert (message.id, message.ts, message.again, message.system) == (sent.id, sent.ts, False, None)
            assert (message.mentions, message.reactions, message.files) == ([], {}, [])
            assert message.raw["op"] == "msg"
            await sent.delivered(PATIENCE_S)
            await b.read(message.conv, message.seq)
            await sent.read(PATIENCE_S)
            assert sent.state == "read"

    run(main)


def test_it_runs_on_uvloop(client: Clients, name: Name) -> None:
    async def main() -> None:
        async with client(name("alice")) as a, client(name("bob")) as b:
            await said(a, b.user, "hi")
            assert (await take(b, 1))[0].body == "hi"

    uvloop.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_every_body_arrives_as_it_was(client: Clients, name: Name, codec: Any) -> None:
    bodies = ["", "text", None, 0, -1.5, True, [1, [b"\0"]], {"a": {"b": b"bytes"}}, b"", b"\x78\x9c", "ü" * 500, "𝄞"]

    async def main() -> None:
        async with client(name("alice"), codec=codec) as a, client(name("bob"), codec=codec) as b:
            for body in bodies:
                await a.send(name("bob"), body)
            assert [message.body for message in await take(b, len(bodies))] == bodies

    run(main)


def test_an_app_goes_on_where_it_stopped(client: Clients, name: Name) -> None:
    async def main() -> None:
        alice, bob = name("alice"), name("bob")
        async with client(alice) as a:
            for number in range(3):
                await said(a, bob, number)
            async with client(bob) as b:
                device = b.device
                async for message in b.messages():
                    if message.body == 1:
                        break
                again = await following(b.messages())
                assert (again.body, again.again) == (1, True)
            async with client(bob) as b:
                assert b.device == device
                found = await take(b, 2)
                assert [(message.body, message.again) for message in found] == [(1, True), (2, False)]
            async with client(bob) as b:
                await said(a, bob, 3)
                assert [message.body for message in await take(b, 1)] == [3]

    run(main)


def test_messages_has_one_iterator_at_a_time(client: Clients, name: Name) -> None:
    async def main() -> None:
        async with client(name("alice")) as a:
            first = a.messages()
            with pytest.raises(RuntimeError):
                await anext(a.messages())
            await first.aclose()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(a.messages()), 0.05)
            await said(a, a.user, "to myself")

    run(main)


def test_what_is_sent_offline_arrives_in_order(client: Clients, name: Name) -> None:
    async def main() -> None:
        alice, bob = name("alice"), name("bob")
        async with client(alice, url="mqtt://127.0.0.1:1") as a:
            for number in range(20):
                await a.send(bob, number)
            taken_back = await a.send(bob, "no")
            assert await taken_back.cancel()
            assert taken_back.state == "failed"
            with pytest.raises(SendFailed, match="cancelled"):
                await taken_back.sent()
            with pytest.raises(Offline):
                await a.history(bob, timeout=0.05)
            assert [outgoing.op for outgoing in a.outgoing()] == ["send"] * 20
        async with client(alice) as a, client(bob) as b:
            pending = a.outgoing()
            assert [message.body for message in await take(b, 20)] == list(range(20))
            for outgoing in pending:
                await outgoing.sent(PATIENCE_S)
            assert a.outgoing() == []

    run(main)


def test_a_refusal_fails_at_once_and_holds_up_nothing(client: Clients, name: Name) -> None:
    async def main() -> None:
        bob = name("bob")
        async with client(name("alice")) as a, client(bob) as b:
            await a.online(PATIENCE_S)
            sent = [await a.send(bob, 1), await a.edit(f"{a.user}:{bob}", 99, "x"), await a.send("#nowhere", 2)]
            sent += [await a.send(bob, number) for number in range(3, 30)]
            for outgoing, code in ((sent[1], "not_found"), (sent[2], "not_member")):
                with pytest.raises(SendFailed) as caught:
                    await outgoing.sent(PATIENCE_S)
                assert (caught.value.code, outgoing.state, outgoing.error) == (code, "failed", caught.value)
            assert [message.body for message in await take(b, 28)] == [1, *range(3, 30)]

    run(main)


def test_what_is_too_large_is_refused_here(client: Clients, name: Name) -> None:
    async def main() -> None:
        bob = name("bob")
        async with contextlib.AsyncExitStack() as open_ones:
            a = await open_ones.enter_async_context(client(name("alice")))
            early = await a.send(bob, "x" * 70_000)
            assert early.state == "queued"
            behind = await a.send(bob, "behind")
            b = await open_ones.enter_async_context(client(bob))
            with pytest.raises(SendFailed) as caught:
                await early.sent(PATIENCE_S)
            assert caught.value.code == "too_large"
            await behind.sent(PATIENCE_S)
            late = await a.send(bob, "x" * 70_000)
            assert (late.state, late.error and late.error.code) == ("failed", "too_large")
            assert [message.body for message in await take(b, 1)] == ["behind"]

    run(main)


def test_groups_are_made_and_changed(client: Clients, name: Name) -> None:
    async def main() -> None:
        alice, bob, carol = name("alice"), name("bob"), name("carol")
        async with client(alice) as a, client(bob) as b, client(carol) as c:
            made = await (await a.group_create(members=[bob], name="Ops")).sent(PATIENCE_S)
            group = made.group
            assert group is not None
            assert group.startswith("#")
            for made in (await a.group_create([bob], group=name("#one")), await a.group_create(name("#two"), [bob])):
                await made.sent(PATIENCE_S)
            assert {each.conv for each in await b.conversations()} == {group, name("#one"), name("#two")}
            await take(b, 2)
            await a.group_add(group, [carol])
            await a.group_role(group, bob, "admin")
            await a.group_rename(group, "Operations")
            sent = await said(a, group, "all")
            found = await take(c, 4)
            assert found[0].system == {"event": "group.add", "members": [carol]}
            assert found[-1].body == "all"
            assert sent.state == "sent"
            await take(b, 5)
            await sent.delivered(PATIENCE_S)
            info = await a.group_info(group)
            assert (info["name"], {each["user"]: each["role"] for each in info["members"]}[bob]) == ("Operations", "admin")
            await (await c.group_leave(group)).sent(PATIENCE_S)
            await (await a.group_remove(group, [bob])).sent(PATIENCE_S)
            assert len((await a.group_info(group))["members"]) == 1

    run(main)


def test_events_tell_what_is_no_message(client: Clients, name: Name) -> None:
    async def main() -> None:
        alice, bob = name("alice"), name("bob")
        async with client(alice) as a, client(bob) as b:
            events, own = b.events(), a.events()
            sent = await said(a, bob, "frist")
            conv = str(sent.conv)
            (message,) = await take(b, 1)
            assert (await event(own, Receipt)).delivered == 1
            await a.edit(conv, 1, "first")
            edited = await event(events, Edited)
            assert (edited.conv, edited.seq, edited.by, edited.body, edited.pos) == (conv, 1, alice, "first", 2)
            await b.react(conv, 1, "👍")
            assert (await event(own, Reacted)).emoji == "👍"
            await b.report(conv, 1, "executed", {"level": 3})
            reported = await event(own, Reported)
            assert (reported.state, reported.result) == ("executed", {"level": 3})
            await b.read(conv, message.seq)
            assert (await event(own, Receipt)).read == 1
            await a.typing(bob)
            assert await event(events, Typing) == Typing(conv, alice, True)
            await a.recall(conv, 1)
            assert (await event(events, Recalled)).seq == 1
            await b.watch(alice)
            assert (await event(events, Presence)).state == "online"
            with pytest.raises(RequestFailed):
                await b.watch(name("stranger"))

    run(main)


def test_events_do_not_wait_behind_a_thousand_unread_messages(client: Clients, name: Name) -> None:
    count = 1_100

    async def main() -> None:
        async with client(name("alice")) as a, client(name("bob")) as b:
            await b.online(PATIENCE_S)
            sent = await asyncio.gather(*(a.send(b.user, number) for number in range(count)))
            for outgoing in sent:
                await outgoing.sent(6 * PATIENCE_S)
            assert [outgoing.seq for outgoing in sent] == list(range(1, count + 1)), "in the order of the calls"
            assert sent[0].conv is not None
            await (await a.react(sent[0].conv, 1, "👍")).sent(PATIENCE_S)
            events = b.events()
            assert (await event(events, Reacted)).emoji == "👍"
            await (await a.react(sent[0].conv, 1, "👎")).sent(PATIENCE_S)
            assert (await event(events, Reacted)).emoji == "👎"
            assert [message.body for message in await take(b, count)] == list(range(count))
            await (await a.react(sent[0].conv, 1, "x")).sent(PATIENCE_S)
            assert (await event(events, Reacted)).emoji == "x", "none came twice"

    run(main)


def test_questions(client: Clients, name: Name) -> None:
    async def main() -> None:
        alice, bob = name("alice"), name("bob")
        async with client(alice) as a, client(bob) as b:
            for number in range(5):
                await said(a, bob, f"number {number}")
            page = await a.history(bob, limit=2)
            assert ([message.body for message in page], page.more) == (["number 3", "number 4"], True)
            assert page[0].pos is None
            (conversation,) = await b.conversations()
            assert (conversation.conv, conversation.unread, conversation.seq) == (f"{alice}:{bob}", 5, 5)
            assert conversation.last is not None
            assert conversation.last.body == "number 4"
            assert [message.body for message in await b.search("number 2")] == ["number 2"]
            assert [each["device"] for each in (await a.devices())["devices"]] == [a.device]
            with pytest.raises(RequestFailed) as caught:
                await a.history("#nowhere")
            assert caught.value.code == "not_member"
            assert (await a.request("history", conv=f"{alice}:{bob}", limit=1))["items"][0]["seq"] == 5

    run(main)


def test_a_full_outbox_says_so_and_read_never_fills_it(client: Clients, name: Name) -> None:
    async def main() -> None:
        async with client(name("alice"), url="mqtt://127.0.0.1:1", outbox_limit=3) as a:
            sent = [await a.send("bob", number, id=f"m{number}") for number in range(3)]
            with pytest.raises(OutboxFull):
                await a.send("bob", 3)
            assert await a.send("bob", 1, id="m1") is sent[1]
            with pytest.raises(SendFailed, match="conflict"):
                await a.send("bob", "else", id="m1")
            assert await a.read("a:b", 1) is await a.read("a:b", 5)
            assert len(a.outgoing()) == 4

    run(main)


def test_time_outs_and_ttl_give_up_for_good(client: Clients, name: Name) -> None:
    async def main() -> None:
        bob = name("bob")
        async with client(name("alice"), url="mqtt://127.0.0.1:1") as a:
            for code, options in (("timeout", {"timeout": 0.05}), ("expired", {"ttl": 1})):
                sent = await a.send(bob, code, **options)
                with pytest.raises(SendFailed) as caught:
                    await sent.sent(PATIENCE_S)
                assert caught.value.code == code
            with pytest.raises(TimeoutError):
                await (await a.send(bob, "stays")).sent(0.01)
        async with client(name("alice")) as a, client(bob) as b:
            await a.online(PATIENCE_S)
            assert [message.body for message in await take(b, 1)] == ["stays"]

    run(main)


def test_a_store_belongs_to_one_user_and_one_process(client: Clients, name: Name) -> None:
    async def main() -> None:
        async with client(name("alice")) as a:
            with pytest.raises(StoreInUse):
                await client(name("alice")).connect()
            path = client.folder / f"{a.user}.db"
        with pytest.raises(StoreUnusable):
            await client("somebody-else", store=path).connect()
        with pytest.raises(StoreUnusable):
            await client(name("alice"), device="another").connect()
        damaged = client.folder / "damaged.db"
        damaged.write_bytes(b"no database at all" * 100)
        with pytest.raises(StoreUnusable):
            await client(name("alice"), store=damaged).connect()

    run(main)


def test_states(client: Clients, name: Name) -> None:
    async def main() -> None:
        a = client(name("alice"), url=["mqtt://127.0.0.1:1", client.url])
        assert a.state == "closed"
        await a.connect()
        states = a.states()
        assert await following(states) == "connecting"
        await a.online(PATIENCE_S)
        assert await following(states) == "online"
        await a.close()
        assert await following(states) == "closed"
        with pytest.raises(StopAsyncIteration):
            await anext(states)

    run(main)


def test_a_client_that_reads_no_messages_sends_on(client: Clients, name: Name) -> None:
    """The delivery pauses 1,000 items ahead of the first message that is not done, and the `sent` items behind it with it."""

    async def main() -> None:
        async with client(name("alice"), synchronous="normal") as a, client(name("bob")) as b:
            await said(b, a.user, "never read")
            sent = [await a.send(name("bob"), number) for number in range(1_100)]
            await asyncio.gather(*(outgoing.sent(60) for outgoing in sent))
            assert [outgoing.seq for outgoing in sent] == list(range(2, 1_102))

    run(main)


def test_over_websocket(client: Clients, name: Name) -> None:
    async def main() -> None:
        url = f"ws://127.0.0.1:{client.server.websocket_port}/mqtt"
        async with client(name("alice"), url=url) as a, client(name("bob"), url=url) as b:
            await said(a, name("bob"), "x" * 60_000)
            assert len((await take(b, 1))[0].body) == 60_000

    run(main)


def test_without_asyncio(client: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    options = {"url": client.url}
    with sync.Client(**options, user=alice) as a, sync.Client(**options, user=bob) as b:
        a.online(PATIENCE_S)
        sent = a.send(bob, "hi").sent(PATIENCE_S)
        assert (sent.state, sent.seq, a.outgoing()) == ("sent", 1, [])
        for message in b.messages(timeout=PATIENCE_S):
            assert (message.body, message.again) == ("hi", False)
            break
        for message in b.messages(timeout=0.2):
            assert message.again
        assert sent.delivered(PATIENCE_S).state == "delivered"
        assert [message.body for message in a.history(bob)] == ["hi"]
        with pytest.raises(RequestFailed):
            a.group_info("#nowhere")
        with pytest.raises(SendFailed):
            a.edit(f"{alice}:{bob}", 9, "x").sent(PATIENCE_S)
        assert a.state == "online"
    assert a.state == "closed"


def test_progress_reaches_the_server(client: Clients, name: Name) -> None:
    async def main() -> None:
        async with client(name("alice")) as a, client(name("bob")) as b:
            for number in range(3):
                await said(a, name("bob"), number)
            messages = b.messages()
            for _ in range(3):
                await following(messages)
            seen: list[int] = []
            while not seen or seen[-1] < 2:
                seen.append((await b.devices())["devices"][0]["pos"])
            assert seen[-1] == 2  # the third is in hand

    run(main)
