"""A server that misbehaves on purpose, for tests of clients: it does what the script says, and nothing else.

    async with MisbehavingServer() as server:
        ...  # a client connects to server.host, server.port
        line = await server.accept()  # CONNECT was read; now line.connect tells what it said
        line.connack()
        hello = await line.request("hello")
        line.welcome(hello)
        line.item({"op": "msg", "pos": 3, ...})  # and not 1 and 2
        sync = await line.request("sync")
        line.silent = True  # from now on nothing is acknowledged
        line.reset()

It speaks MQTT 3.1.1 and 5, JSON, and acknowledges PUBLISH, SUBSCRIBE and PINGREQ by itself unless it is told not to. The guide
for those who write a client (docs/client-protocol.md) lists what to try with it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from mqtt_im.mqtt import V5, V311, encode, framing, packets
from mqtt_im.mqtt.packets import Connect

Map = dict[str, Any]
PATIENCE_S: Final = 15.0
"""How long a script waits for what the client must do."""
LIMITS: Final = {"packet": 262_144, "body": 65_536, "window": 64, "rate": 200, "page": 500}
_LARGEST: Final = 1 << 24


class Line:
    """One connection. `requests` is what the client has published, `subscribed` its filters, `pubacks` what it acknowledged."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connect: Connect
        self.silent = False
        """Nothing is acknowledged, not even PINGREQ: the line is half open, as far as the client can see."""
        self.requests: list[Map] = []
        self.subscribed: list[str] = []
        self.pubacks: list[int] = []
        self.pings = 0
        self.closed = False
        """The client has ended the connection."""
        self._reader = reader
        self._writer = writer
        self._seen = 0
        self._news = asyncio.Event()
        self._packet_id = 0
        self._hold: set[str] = set()
        self._version = V311

    # What the client does

    async def read_connect(self) -> None:
        """Read its CONNECT. Raises `ValueError` where it sends something else, `OSError` where it ends."""
        first, body = await self._packet()
        if first != 0x10:
            raise ValueError("the client began with something else than CONNECT")
        self.connect = packets.connect(body)
        self._version = self.connect.version

    async def request(self, op: str | None = None) -> Map:
        """The next request that it publishes; with `op` the next of that kind, what comes before is passed over."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while self._seen < len(self.requests):
                    found = self.requests[self._seen]
                    self._seen += 1
                    if op is None or found["op"] == op:
                        return found
                if self.closed:
                    raise ConnectionError(f"the client has ended the connection; it has sent {self.requests}")
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> None:
        """Returns when the client has ended the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.closed:
                self._news.clear()
                await self._news.wait()

    def hold(self, *ops: str) -> None:
        """No PUBACK for these requests."""
        self._hold.update(ops)

    # What the server does

    def connack(self, code: int = 0, *, session_present: bool = False, properties: bytes = b"") -> None:
        """CONNACK."""
        v5 = self._version == V5
        self.send(encode.connack5(code, session_present, properties) if v5 else encode.connack(code, session_present))

    def welcome(self, hello: Map, *, pos: int = 0, epoch: str = "epoch-1", **fields: Any) -> None:
        """The answer to a `hello`."""
        answer = {"op": "welcome", "id": hello.get("id"), "pos": pos, "head": pos, "floor": 0, "n": hello.get("n", 0)}
        self.reply({**answer, "epoch": epoch, "limits": LIMITS, "ts": 1, **fields})

    def item(self, item: Map, *, packet_id: int | None = None) -> None:
        """An item or a batch, at QoS 1, on the user's topic."""
        self._packet_id = self._packet_id % 65_535 + 1 if packet_id is None else packet_id
        self.publish(f"im/v1/{self.user}/down", json.dumps(item).encode(), self._packet_id)

    def reply(self, fields: Map) -> None:
        """A reply or an event, at QoS 0, on the device's topic."""
        self.publish(f"im/v1/{self.user}/{self.device}/down", json.dumps(fields).encode())

    def publish(self, topic: str, payload: bytes, packet_id: int = 0) -> None:
        """Any PUBLISH."""
        name = topic.encode()
        rest = (packet_id.to_bytes(2, "big") if packet_id else b"") + (b"\0" if self._version == V5 else b"") + payload
        self.send(encode.publish_head(0x32 if packet_id else 0x30, len(name), len(rest)) + name + rest)

    def send(self, data: bytes) -> None:
        """Any bytes, sensible or not."""
        self._writer.write(data)

    def close(self) -> None:
        """End the connection."""
        self._writer.close()

    def reset(self) -> None:
        """End it with RST, and lose what was not sent."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    @property
    def user(self) -> str:
        """The user that the CONNECT named."""
        return self.connect.username or self.connect.client_id.partition(":")[0]

    @property
    def device(self) -> str:
        """The device that the CONNECT named."""
        return self.connect.client_id.rpartition(":")[2]

    # Reading

    async def run(self) -> None:
        """Take in what comes, until the end."""
        try:
            while True:
                self._take(*await self._packet())
                self._news.set()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed = True
            self._news.set()

    async def _packet(self) -> tuple[int, bytes]:
        header = await self._reader.readexactly(2)
        while True:
            start, end = framing.body_and_end(header, 0, _LARGEST)
            if start:
                return header[0], await self._reader.readexactly(end - start)
            header += await self._reader.readexactly(1)

    def _take(self, first: int, body: bytes) -> None:
        kind = first & 0xF0
        if kind == 0x30:
            publish = packets.publish(first, body, self._version)
            request = decoded(publish.payload)
            self.requests.append(request)
            if publish.packet_id and not self.silent and request["op"] not in self._hold:
                self.send(encode.short(0x40, publish.packet_id))
        elif kind == 0x40:
            self.pubacks.append(int.from_bytes(body[:2], "big"))
        elif kind == 0x80 and not self.silent:
            packet_id, filters, _ = packets.subscribe(body, self._version)
            self.subscribed += [name for name, _ in filters]
            v5 = self._version == V5
            self.send((encode.suback5 if v5 else encode.suback)(packet_id, [1] * len(filters)))
        elif kind == 0xC0:
            self.pings += 1
            if not self.silent:
                self.send(b"\xd0\x00")


class MisbehavingServer:
    """Listens on a free port of loopback, on the running event loop. Each connection waits for the script in `accept`."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.lines: list[Line] = []
        self._waiting: asyncio.Queue[Line] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """For the client."""
        return f"mqtt://{self.host}:{self.port}"

    async def accept(self, version: int | None = 4) -> Line:
        """The next connection that has sent its CONNECT; those of another version than `version` (4 or 5) are refused."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = await self._waiting.get()
                if version is None or line.connect.version == version:
                    return line
                line.connack(0x84 if line.connect.version == V5 else 1)
                line.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.close()
        for line in self.lines:
            line.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(reader, writer)
        self.lines.append(line)
        try:
            await line.read_connect()
            self._waiting.put_nowait(line)
            await line.run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            line.closed = True
        finally:
            self._tasks.discard(task)
            writer.close()


def decoded(payload: bytes) -> Map:
    """A request in any of the protocol's forms. Raises `ValueError` where it is none."""
    if payload[:1] == b"\x78":
        payload = zlib.decompress(payload)
    found = msgspec.json.decode(payload) if payload[:1] == b"{" else msgspec.msgpack.decode(payload)
    if not isinstance(found, dict) or "op" not in found:
        raise ValueError(f"no request: {found!r}")
    return found
