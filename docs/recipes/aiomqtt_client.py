"""A device on aiomqtt, MQTT 5: python aiomqtt_client.py USER DEVICE PEER. From the environment: IM_HOST, IM_PORT, IM_PASSWORD.

aiomqtt acknowledges a packet before the program has seen it, so this device asks for `ack: "app"`: the server waits for `ack`.
"""

import asyncio
import contextlib
import json
import os
import sys
import uuid

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

REPEAT_S = 5

user, device, peer = sys.argv[1:]
up = f"im/v1/{user}/{device}/up"
waiting: dict[str, dict] = {}  # what has no answer yet, in the order of its lines
answered = asyncio.Event()
inbox = open(f"{user}-{device}.jsonl", "a+", encoding="utf-8")  # what has come, a line each
inbox.seek(0)
seen = max((json.loads(line)["pos"] for line in inbox), default=0)


def connection() -> aiomqtt.Client:
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 30 * 24 * 3600
    return aiomqtt.Client(
        os.environ.get("IM_HOST", "127.0.0.1"),
        int(os.environ.get("IM_PORT", "1883")),
        username=user,
        password=os.environ.get("IM_PASSWORD"),
        identifier=device,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        properties=kept,
    )


async def publish(client: aiomqtt.Client, request: dict) -> None:
    await client.publish(up, json.dumps(request), qos=1)


async def receive(client: aiomqtt.Client) -> None:
    global seen
    async for message in client.messages:
        item = json.loads(message.payload)
        if item["op"] in ("sent", "error") and waiting.pop(item.get("id"), None):
            if item["op"] == "error":
                print(f"not sent: {item['message']}", file=sys.stderr, flush=True)
            answered.set()
        if item["op"] == "welcome" or item.get("pos", 0) <= seen:
            continue  # a repeat, or no item
        inbox.write(json.dumps(item) + "\n")
        inbox.flush()
        os.fsync(inbox.fileno())
        seen = item["pos"]
        if item["op"] == "msg" and "body" in item:
            print(f"{item['from']}: {item['body']}", flush=True)
        await publish(client, {"op": "ack", "pos": seen})  # now the server may forget it


async def repeat(client: aiomqtt.Client) -> None:
    """What has no answer is sent again with the same id, which changes nothing where the server has it already."""
    while True:
        for request in list(waiting.values()):
            await publish(client, request)
        await asyncio.sleep(REPEAT_S)


async def stay_connected(current: list[aiomqtt.Client]) -> None:
    while True:
        try:
            async with connection() as client:
                await client.subscribe([(f"im/v1/{user}/down", 1), (f"im/v1/{user}/{device}/down", 1)])
                await publish(client, {"op": "hello", "ack": "app"})
                current[:] = [client]
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(receive(client))
                    tasks.create_task(repeat(client))
        except* aiomqtt.MqttError as error:
            print(f"no connection: {error.exceptions[0]}", file=sys.stderr, flush=True)
        current.clear()
        await asyncio.sleep(1)


async def main() -> None:
    current: list[aiomqtt.Client] = []
    connected = asyncio.create_task(stay_connected(current))
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = {"op": "send", "id": str(uuid.uuid4()), "to": peer, "body": line.rstrip("\n")}
        waiting[request["id"]] = request
        if current:
            with contextlib.suppress(aiomqtt.MqttError):  # then it waits, and goes with the next connection
                await publish(current[0], request)
        while request["id"] in waiting:
            answered.clear()
            await answered.wait()
    connected.cancel()


asyncio.run(main())
