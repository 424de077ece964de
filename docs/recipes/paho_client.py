"""A device on paho-mqtt: python paho_client.py USER DEVICE PEER. From the environment: IM_HOST, IM_PORT, IM_PASSWORD.

It speaks MQTT 3.1.1, or 5 with IM_VERSION=5. Each line of stdin is sent to PEER until the server has it; what comes is kept in a
file before it is acknowledged, once.
"""

import json
import os
import sys
import threading
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

REPEAT_S = 5

user, device, peer = sys.argv[1:]
up = f"im/v1/{user}/{device}/up"
answered: dict[str, threading.Event] = {}  # by id, of what is on its way
inbox = open(f"{user}-{device}.jsonl", "a+", encoding="utf-8")  # what has come, a line each
inbox.seek(0)
seen = max((json.loads(line)["pos"] for line in inbox), default=0)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        print(f"refused: {reason}", file=sys.stderr, flush=True)
    else:
        client.subscribe([(f"im/v1/{user}/down", 1), (f"im/v1/{user}/{device}/down", 1)])


def on_message(client, userdata, packet):
    global seen
    item = json.loads(packet.payload)
    if item["op"] in ("sent", "error") and item.get("id") in answered:
        if item["op"] == "error":
            print(f"not sent: {item['message']}", file=sys.stderr, flush=True)
        answered[item["id"]].set()
    if item["op"] != "welcome" and item.get("pos", 0) > seen:  # what has a known pos is a repeat
        inbox.write(json.dumps(item) + "\n")
        inbox.flush()
        os.fsync(inbox.fileno())
        seen = item["pos"]
        if item["op"] == "msg" and "body" in item:
            print(f"{item['from']}: {item['body']}", flush=True)
    client.ack(packet.mid, packet.qos)  # now the server may forget it


kept, options = {"clean_session": False}, {}
if os.environ.get("IM_VERSION") == "5":
    expiry = Properties(PacketTypes.CONNECT)
    expiry.SessionExpiryInterval = 30 * 24 * 3600
    kept, options = {"protocol": mqtt.MQTTv5}, {"clean_start": False, "properties": expiry}
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, manual_ack=True, **kept)
client.username_pw_set(user, os.environ.get("IM_PASSWORD"))
client.on_connect, client.on_message = on_connect, on_message
client.reconnect_delay_set(1, 30)
client.connect(os.environ.get("IM_HOST", "127.0.0.1"), int(os.environ.get("IM_PORT", "1883")), **options)
client.loop_start()  # reconnects by itself, and repeats what has no PUBACK

for line in sys.stdin:
    request = {"op": "send", "id": str(uuid.uuid4()), "to": peer, "body": line.rstrip("\n")}
    done = answered[request["id"]] = threading.Event()
    client.publish(up, json.dumps(request), qos=1)
    while not done.wait(REPEAT_S):
        if client.is_connected():  # the same id: it is sent once, however often this happens
            client.publish(up, json.dumps(request), qos=1)
    del answered[request["id"]]
client.disconnect()
client.loop_stop()
