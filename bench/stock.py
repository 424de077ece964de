"""A chat app on plain paho-mqtt with a persistent session, as its documentation writes one; on any broker."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


class StockApp:
    """One user. `received` holds what came: (when, text), repeats included, since nothing tells them apart."""

    def __init__(self, port: int, user: str, topic: str, *, keepalive: int = 60) -> None:
        self.received: list[tuple[float, str]] = []
        self.connected = threading.Event()
        self.acknowledged = 0
        self.lost_at = 0.0
        self._user = user
        self._port = port
        self._topic = topic
        self._keepalive = keepalive
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"{user}:phone", clean_session=False)
        self._client.username_pw_set(user)
        self._client.reconnect_delay_set(1, 60)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def start(self) -> None:
        """Connecting has begun."""
        self._client.connect_async("127.0.0.1", self._port, self._keepalive)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnected."""
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, to: str, text: str) -> None:
        """Publish at QoS 1; paho repeats it until it is acknowledged."""
        # Who wrote, and when, a broker does not say: an app puts it in.
        stamp = {"from": self._user, "ts": time.time_ns() // 10**6}
        request = {"op": "send", "id": uuid.uuid4().hex[:12], "to": to, "body": text, **stamp}
        self._client.publish(topic, json.dumps(request, separators=(",", ":")), qos=1)

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)
        self.connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        self.lost_at = time.perf_counter()
        self.connected.clear()

    def _on_publish(self, *_: Any) -> None:
        self.acknowledged += 1

    def _on_message(self, _client: Client, _data: Any, packet: Any) -> None:
        item = json.loads(packet.payload)
        if "body" in item:
            self.received.append((time.perf_counter(), item["body"]))
