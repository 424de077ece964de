"""A messaging client of MQTT 5 over a plain socket, for tests that look at every packet."""

from __future__ import annotations

import json
import socket
import time
from types import TracebackType
from typing import Any, Self

from tests.support import packets, packets5
from tests.support.packets import Packet, Parser
from tests.support.packets5 import Connack, Given, Publish
from tests.support.raw import PATIENCE_S

Map = dict[str, Any]


class Im5:
    """One connection. It reads while it waits for something; `auto_ack` answers what comes at QoS 1."""

    def __init__(self, port: int, user: str, device: str = "phone", **connect: Any) -> None:
        self.user, self.device = user, device
        self.up = f"im/v1/{user}/{device}/up"
        self.user_down, self.device_down = f"im/v1/{user}/down", f"im/v1/{user}/{device}/down"
        self.auto_ack = True
        self.came: list[Publish] = []
        """Every PUBLISH, its topic filled in where an alias stood for it."""
        self.sent_topics: list[str] = []
        """The topics as they were sent."""
        self.others: list[Packet] = []
        self.closed = False
        self._aliases: dict[int, str] = {}
        self._parser = Parser()
        self._last_id = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.send(packets5.connect(connect.pop("client_id", device), username=user, **connect))
        self.connack = Connack.of(self.until(lambda: self._take(packets.CONNACK)))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _take(self, kind: int, packet_id: int | None = None) -> Packet | None:
        for packet in self.others:
            if packet.kind == kind and packet_id in (None, packet.packet_id):
                self.others.remove(packet)
                return packet
        return None

    def until(self, found: Any) -> Any:
        """Read until this finds something, and return that."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := found()):
            assert time.monotonic() < deadline, f"nothing came; so far: {self.came} {self.others}"
            assert not self.closed, f"the connection was closed; so far: {self.came} {self.others}"
            self.read()
        return value

    def read(self) -> None:
        try:
            data = self._socket.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
        for packet in self._parser.feed(data):
            if packet.kind == packets.PUBLISH:
                self._receive(Publish.of(packet))
            else:
                self.others.append(packet)

    def _receive(self, message: Publish) -> None:
        self.sent_topics.append(message.topic)
        alias = dict(message.properties).get(packets5.ALIAS)
        topic = message.topic
        if alias is not None:
            topic = self._aliases[alias] = message.topic or self._aliases[alias]
        self.came.append(
            Publish(topic, message.payload, message.qos, message.dup, message.retain, message.packet_id, message.properties)
        )
        if message.qos and self.auto_ack:
            self.ack(message)

    def ack(self, message: Publish, code: int | None = None) -> None:
        self.send(packets5.acknowledge(packets.PUBACK, message.packet_id, code))

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def subscribe(self, *filters: tuple[str, int], given: Given = None) -> list[int]:
        packet_id = self.next_id()
        self.send(packets5.subscribe(packet_id, *filters, given=given))
        return packets5.codes_of(self.until(lambda: self._take(packets.SUBACK, packet_id)))

    def listen(self, given: Given = None) -> Self:
        assert self.subscribe((self.user_down, 1), (self.device_down, 1), given=given) == [1, 1]
        return self

    def publish(self, payload: bytes, *, qos: int = 1, given: Given = None, topic: str | None = None) -> tuple[int, str]:
        """Publish on one's own `up`; the code of the answer and its reason string."""
        packet_id = self.next_id() if qos else 0
        self.send(packets5.publish(self.up if topic is None else topic, payload, qos=qos, packet_id=packet_id, given=given))
        if not qos:
            return 0, ""
        answer = self.until(lambda: self._take(packets.PUBREC if qos == 2 else packets.PUBACK, packet_id))
        code, found = packets5.code_of(answer)
        if qos == 2 and code < 0x80:
            self.send(packets5.acknowledge(packets.PUBREL, packet_id))
            self.until(lambda: self._take(packets.PUBCOMP, packet_id))
        return code, found.get(packets5.REASON, "")

    def ask(self, op: str, *, qos: int = 1, given: Given = None, **fields: Any) -> tuple[int, str]:
        """One request; the code of the answer and its reason string."""
        return self.publish(json.dumps({"op": op, **fields}).encode(), qos=qos, given=given)

    def say(self, to: str, body: Any, **fields: Any) -> None:
        assert self.ask("send", to=to, body=body, **fields) == (0, "")

    def find(self, op: str, **fields: Any) -> tuple[Map, Publish] | None:
        for message in self.came:
            if message.topic.endswith("/down"):
                data = json.loads(message.payload)
                if data["op"] == op and all(data.get(key) == value for key, value in fields.items()):
                    self.came.remove(message)
                    return data, message
        return None

    def get(self, op: str, **fields: Any) -> tuple[Map, dict[int, Any]]:
        """The next map of this op with these fields, and the properties of its packet; not found again."""
        data, message = self.until(lambda: self.find(op, **fields))
        return data, dict(message.properties)

    def settle(self) -> None:
        """Everything that was on its way has come."""
        self.send(packets.packet(packets.PINGREQ))
        self.until(lambda: self._take(packets.PINGRESP))

    def goodbye(self) -> int:
        """The code of the DISCONNECT with which the server closes."""
        while not self.closed:
            self.read()
        return packets5.goodbye(self.others)

    def disconnect(self, code: int | None = None, given: Given = None) -> None:
        self.send(packets5.disconnect(code, given))
        while not self.closed:
            self.read()
        self.close()

    def close(self) -> None:
        self.closed = True
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
