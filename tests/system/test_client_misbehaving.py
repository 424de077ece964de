"""The client library and a server that does what no server should: what the app sees, and what is on the wire."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.client import Client, Lost, Offline, Refused, SendFailed, Typing, Void
from mqtt_im.testing.misbehaving import Line, MisbehavingServer
from tests.support.clients import PATIENCE_S, event, following, run, until


def message(pos: int, **fields: Any) -> dict[str, Any]:
    return {"op": "msg", "pos": pos, "conv": "alice:bob", "seq": pos, "from": "bob", "body": pos, "ts": 1, **fields}


async def online(server: MisbehavingServer, **fields: Any) -> tuple[Line, dict[str, Any]]:
    line = await server.accept()
    line.connack()
    hello = await line.request("hello")
    line.welcome(hello, **fields)
    return line, hello


SENSELESS = [
    b"",
    b"{",
    b"[]",
    b"\xc1",
    b"x\x9cno zlib",
    b'{"op":7}',
    b'{"op":"msg","pos":-1}',
    b'{"op":"msg","pos":"1"}',
    b'{"op":"batch","items":[1,{"op":"msg"}]}',
    b'{"op":"page"}',
    b'{"op":"unheard of"}',
    b'{"op":"receipt"}',
    b'{"op":"error","id":7}',
    b'{"op":"welcome","id":"h1","pos":-4}',
    b'{"op":"void","pos":1,"from":99}',
]


def alice(server: MisbehavingServer, **options: Any) -> Client:
    return Client(server.url, **{"user": "alice", "device": "pc", **options})


def test_the_first_flight_leaves_at_connack_without_an_answer() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            sent = [await im.send("bob", number) for number in range(3)]
            line = await server.accept()
            assert (line.connect.clean, line.connect.keep_alive) == (False, 600)
            line.silent = True
            line.connack()
            hello = await line.request()
            assert (hello["op"], hello["n"], hello["ack"]) == ("hello", 0, "app")
            assert "after" not in hello
            requests = [await line.request() for _ in range(3)]
            assert [(each["n"], each["body"], each["id"]) for each in requests] == [
                (number + 1, number, sent[number].id) for number in range(3)
            ]

    run(main)


def test_hello_leaves_with_connect_unless_the_server_does_not_bear_it() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            sent = await im.send("bob", "hi")
            for _ in range(2):
                line = await server.accept()
                assert (await line.request())["op"] == "hello"
                line.close()
                im.network_changed()
            line = await server.accept()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(line.request(), 0.3)
            line.connack()
            hello = await line.request()
            assert hello["op"] == "hello"
            line.welcome(hello)
            assert (await line.request())["id"] == sent.id

    run(main)


def test_hello_says_where_the_outbox_and_the_inbox_stand(tmp_path: Path) -> None:
    async def main() -> None:
        async with MisbehavingServer() as server:
            async with alice(server, store=tmp_path / "a.db") as im:
                line, _ = await online(server)
                sent = [await im.send("bob", number) for number in range(3)]
                first = await line.request("send")
                line.item({"op": "sent", "pos": 1, "id": first["id"], "conv": "alice:bob", "seq": 1, "ts": 1})
                await sent[0].sent(PATIENCE_S)
                line.item(message(2))
                await (await following(im.messages())).done()
                ack = await line.request("ack")
                assert ack["pos"] == 2
                line.reset()
                line, hello = await online(server, pos=2)
                assert (hello["epoch"], hello["after"], hello["n"]) == ("epoch-1", 2, 1)
                again = [await line.request("send") for _ in range(2)]
                assert [(each["n"], each["id"]) for each in again] == [(2, sent[1].id), (3, sent[2].id)]
            async with alice(server, store=tmp_path / "a.db") as im:
                line, hello = await online(server, pos=2)
                assert (hello["epoch"], hello["after"], hello["n"]) == ("epoch-1", 2, 1)
                assert [outgoing.id for outgoing in im.outgoing()] == [sent[1].id, sent[2].id]

    run(main)


def test_a_gap_is_filled_before_anything_behind_it_is_shown() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            messages = im.messages()
            line.item(message(1))
            line.item(message(4))
            line.item(message(4))
            sync = await line.request("sync")
            assert sync["after"] == 1
            line.reply({"op": "page", "id": sync["id"], "items": [message(2)], "more": True})
            sync = await line.request("sync")
            assert sync["after"] == 2
            line.reply({"op": "page", "id": sync["id"], "items": [message(3), message(4)], "more": False})
            assert [(await following(messages)).pos for _ in range(4)] == [1, 2, 3, 4]

    run(main)


def test_items_before_welcome_wait_and_are_acknowledged_after_it() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line = await server.accept()
            line.connack(session_present=True)
            line.item(message(1), packet_id=77)
            hello = await line.request("hello")
            assert line.pubacks == []
            line.welcome(hello)
            assert (await following(im.messages())).pos == 1
            await until(lambda: line.pubacks == [77], "PUBACK")

    run(main)


def test_another_epoch_forgets_positions_and_sends_the_outbox_on() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            events, messages = im.events(), im.messages()
            line, _ = await online(server)
            line.item(message(1))
            assert (await following(messages)).pos == 1
            sent = await im.send("bob", "kept")
            await line.request("send")
            line.reset()
            line, hello = await online(server, pos=7, epoch="epoch-2")
            assert hello["epoch"] == "epoch-1"
            assert await event(events, Lost) == Lost(0, 0, "epoch")
            again = await line.request("send")
            assert again["id"] == sent.id
            line.reply({"op": "error", "id": sent.id, "code": "out_of_order", "message": "n", "retry": False, "expected": 1})
            again = await line.request("send")
            assert (again["id"], again["n"]) == (sent.id, 1)
            line.item(message(8))
            assert (await following(messages)).pos == 8

    run(main)


def test_a_position_below_the_floor_is_given_up() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            events = im.events()
            line, _ = await online(server, pos=3)
            line.reset()
            line = await server.accept()
            line.connack()
            hello = await line.request("hello")
            line.reply({"op": "error", "id": hello["id"], "code": "bad_field", "message": "after: gone", "retry": False})
            hello = await line.request("hello")
            assert "after" not in hello
            line.welcome(hello, pos=9)
            assert await event(events, Lost) == Lost(4, 9, "retention")

    run(main)


def test_a_refusal_numbers_the_rest_anew_when_all_have_their_answer() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            sent = [await im.send("bob", number) for number in range(3)]
            requests = [await line.request("send") for _ in range(3)]
            line.reply({"op": "error", "id": sent[0].id, "code": "blocked", "message": "no", "retry": False})
            with pytest.raises(SendFailed, match="blocked"):
                await sent[0].sent(PATIENCE_S)
            late = await im.send("bob", 3)
            for request in requests[1:]:
                answer = {"op": "error", "id": request["id"], "code": "out_of_order", "retry": False, "expected": 1}
                line.reply({**answer, "message": "n"})
            found = [await line.request("send") for _ in range(3)]
            assert [(each["id"], each["n"]) for each in found] == [(sent[1].id, 1), (sent[2].id, 2), (late.id, 3)]

    run(main)


def test_what_has_no_counter_is_sent_alone() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            sent = await im.send("bob", 1)
            blocked = await im.block("eve")
            behind = await im.send("bob", 2)
            first = await line.request("send")
            line.item({"op": "sent", "pos": 1, "id": sent.id, "conv": "alice:bob", "seq": 1, "ts": 1})
            block = await line.request()
            assert (first["id"], block["op"], "n" in block) == (sent.id, "block", False)
            line.reply({"op": "ok", "id": blocked.id})
            last = await line.request()
            assert (last["id"], last["n"]) == (behind.id, 2)

    run(main)


def test_a_half_open_line_is_found() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            await im.online(PATIENCE_S)
            line.silent = True
            sent = await im.send("bob", "into nothing")
            await line.ended()
            line, _ = await online(server)
            assert (await line.request("send"))["id"] == sent.id

    run(main)


def test_network_changed_tries_the_line() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            await im.online(PATIENCE_S)
            im.network_changed()
            await until(lambda: line.pings == 1, "PINGREQ")
            assert im.state == "online"

    run(main)


@pytest.mark.parametrize("code", [4, 5, 2])
def test_a_refused_login_stops_until_it_is_told_to_try(code: int) -> None:
    async def main() -> None:
        passwords = iter(["wrong", "right", "right"])
        async with MisbehavingServer() as server, alice(server, password=lambda: next(passwords)) as im:
            (await server.accept(None)).connack(0x86)
            with pytest.raises(Refused):
                await im.online(PATIENCE_S)
            assert im.state == "refused"
            assert im.state.reason
            im.network_changed()
            (line := await server.accept()).connack(code)
            assert line.connect.password == b"right"
            await until(lambda: im.state == "refused", "refused")
            await im.connect()
            await online(server)
            await im.online(PATIENCE_S)

    run(main)


def test_a_version_that_was_refused_is_remembered(tmp_path: Path) -> None:
    async def main() -> None:
        async with MisbehavingServer() as server:
            for _ in range(2):
                async with alice(server, store=tmp_path / "a.db") as im:
                    await online(server)
                    await im.online(PATIENCE_S)
            assert [line.connect.version for line in server.lines] == [5, 4, 4]

    run(main)


def test_mqtt_5_reason_codes_are_answers() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line = await server.accept(5)
            line.connack()
            line.welcome(await line.request("hello"))
            line.hold("send")
            first, second = await im.send("bob", 1), await im.send("bob", 2)
            assert (await line.request("send"))["n"] == 1
            await line.request("send")
            reason = b"\x1f\x00\x0bblocked: no"
            line.send(b"\x40" + bytes((4 + len(reason), 0, 3, 0x87, len(reason))) + reason)
            with pytest.raises(SendFailed) as caught:
                await first.sent(PATIENCE_S)
            assert (caught.value.code, caught.value.message) == ("blocked", "no")
            reason = b"\x1f\x00\x15out_of_order: n is not"
            reason = b"\x1f" + len(reason[3:]).to_bytes(2, "big") + reason[3:]
            line.send(b"\x40" + bytes((4 + len(reason), 0, 4, 0x83, len(reason))) + reason)
            again = await line.request("send")
            assert (again["id"], again["n"]) == (second.id, 1)

    run(main)


def test_taken_over_three_times_in_a_minute_is_refused() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            for turn in range(3):
                if turn:
                    im.network_changed()
                line = await server.accept(5)
                line.connack()
                line.welcome(await line.request("hello"))
                await im.online(PATIENCE_S)
                im.network_changed()  # what was asked before does not end the refusal
                line.send(b"\xe0\x02\x8e\x00")
                await until(lambda: im.state != "online", "the end of the connection")
                line.close()  # not earlier: with bytes unread that is a reset, which may overtake what was sent
            await until(lambda: im.state == "refused", "refused")

    run(main)


@pytest.mark.parametrize("nonsense", [b"\x00\x00", b"\xf0\xff\xff\xff\xff\xff", b"\x30\x02\xff\xff"])
def test_bytes_that_are_no_mqtt_end_the_connection_and_nothing_else(nonsense: bytes) -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            await im.online(PATIENCE_S)
            line.send(nonsense)
            await until(lambda: im.state != "online", "the end of the connection")
            line.close()
            im.network_changed()
            await online(server)
            await im.online(PATIENCE_S)

    run(main)


def test_payloads_that_make_no_sense_are_passed_over() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            events = im.events()
            line, _ = await online(server)
            topic = "im/v1/alice/down"
            for payload in SENSELESS:
                line.publish(topic, payload)
            line.reply({"op": "typing", "conv": "alice:bob", "from": "bob", "on": True})
            assert await event(events, Void)
            assert await event(events, Typing)
            assert im.state == "online"

    run(main)


def test_a_welcome_that_makes_no_sense_is_no_welcome() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line = await server.accept()
            line.connack()
            line.reply({"op": "welcome", "id": (await line.request("hello"))["id"], "pos": "many", "epoch": ""})
            await line.ended()
            assert im.state != "online"

    run(main)


def test_a_server_that_asks_for_time_gets_it() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line = await server.accept()
            line.connack()
            hello = await line.request("hello")
            line.reply({"op": "error", "id": hello["id"], "code": "unavailable", "message": "", "retry": True, "retry_after": 30})
            await until(lambda: im.state == "waiting", "waiting")
            assert im.state.retry_at is not None
            im.network_changed()
            await online(server)

    run(main)


def test_a_question_is_asked_again_on_the_next_connection() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            await im.online(PATIENCE_S)
            asked = asyncio.create_task(im.history("bob"))
            await line.request("history")
            line.reset()
            line, _ = await online(server)
            question = await line.request("history")
            line.reply({"op": "page", "id": question["id"], "items": [message(1)], "more": False})
            assert [each.body for each in await asked] == [1]
            with pytest.raises(Offline):
                await im.history("bob", timeout=0.1)

    run(main)


def test_what_was_given_up_is_never_sent_again_but_its_state_comes_true() -> None:
    async def main() -> None:
        async with MisbehavingServer() as server, alice(server) as im:
            line, _ = await online(server)
            await im.online(PATIENCE_S)
            line.hold("send")
            sent = await im.send("bob", 1, timeout=1.0)
            await line.request("send")
            with pytest.raises(SendFailed, match="timeout"):
                await sent.sent(PATIENCE_S)
            line.reset()
            line, _ = await online(server)
            assert im.outgoing() == []
            behind = await im.send("bob", 2)
            assert (await line.request("send"))["id"] == behind.id
            line.item({"op": "sent", "pos": 1, "id": sent.id, "conv": "alice:bob", "seq": 1, "ts": 1})
            await until(lambda: sent.state == "sent", "the late answer")
            assert (sent.seq, sent.error) == (1, None)

    run(main)


def test_a_ttl_runs_from_send(tmp_path: Path) -> None:
    async def main() -> None:
        async with MisbehavingServer() as server:
            async with Client("mqtt://127.0.0.1:1", user="alice", device="pc", store=tmp_path / "a.db") as im:
                await im.send("bob", 1, ttl=100)
                await asyncio.sleep(1.2)
            async with alice(server, store=tmp_path / "a.db"):
                line, _ = await online(server)
                request = await line.request("send")
                assert 1 <= request["ttl"] < 100
                assert request["cts"] > 1_000_000_000_000

    run(main)
