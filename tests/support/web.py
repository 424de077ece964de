"""A client of the HTTP API over `http.client`: one connection, requests as maps, answers as they came."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from tests.support.raw import PATIENCE_S

Map = dict[str, Any]
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (lower case) and body of a response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def code(self) -> str:
        """The code of a problem, which must be a whole one."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.headers, self.body)
        problem = self.data
        assert problem["type"] == "about:blank" and problem["status"] == self.status, problem
        assert problem["title"] and problem["detail"], problem
        return str(problem["code"])


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event; `id` is empty where it has none."""

    op: str
    id: str
    data: Map


class Events:
    """An open stream of server-sent events, read while something is waited for."""

    def __init__(
        self,
        port: int,
        token: str | None = None,
        query: str = "",
        receive_buffer: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        **headers: str,
    ) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect((HOST, port))
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=HOST)
        fields = {"Host": "test", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        lines = [f"GET /api/v1/events{query} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._response = http.client.HTTPResponse(self._socket, method="GET")
        self._response.begin()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.comments = 0
        self.seen: list[ServerEvent] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._socket.close()

    @property
    def problem(self) -> Map:
        """The body of a refused stream."""
        found: Map = json.loads(self._response.read())
        return found

    def next(self) -> ServerEvent | None:
        """The next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self._response.readline():
            text = line.decode().rstrip("\n")
            if not text and fields:
                event = ServerEvent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                self.seen.append(event)
                return event
            if text.startswith(":"):
                self.comments += 1
            elif text:
                name, _, value = text.partition(": ")
                fields[name] = value
        return None

    def wait(self, op: str, **fields: Any) -> ServerEvent:
        """The next event of this op with these fields."""
        while (event := self.next()) is not None:
            if event.op == op and fields.items() <= event.data.items():
                return event
        raise AssertionError(f"the stream ended before {op} {fields}; it had {self.seen[-10:]}")

    def until_closed(self) -> None:
        """Read until the server ends the stream."""
        while self.next() is not None:
            pass


class Web:
    """A keep-alive connection, and the token that it shows."""

    def __init__(self, port: int, token: str | None = None, *, tls: ssl.SSLContext | None = None, **headers: str) -> None:
        if tls is None:
            self._connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
        else:
            self._connection = http.client.HTTPSConnection(HOST, port, timeout=PATIENCE_S, context=tls)
        self.user = ""
        """Whose token it is, after `login`."""
        self.token = token
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, data: Any = None, *, body: bytes | None = None, **headers: str) -> Answer:
        """Make a request; `data` goes as JSON, `body` as it is. A header's `-` is written `_`."""
        fields = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.token is not None:
            fields.setdefault("Authorization", f"Bearer {self.token}")
        if data is not None:
            body = json.dumps(data).encode()
            fields.setdefault("Content-Type", "application/json")
        self._connection.request(method, path, body, fields)
        response = self._connection.getresponse()
        found = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, found)

    def post(self, op: str, /, _headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """`POST /api/v1/{op}`."""
        more: dict[str, Any] = {**(_headers or {})}
        return self.ask("POST", f"/api/v1/{op}", fields, **more)

    def must(self, op: str, /, **fields: Any) -> Map:
        """The answer's map; anything but 200 would be a failure of the test."""
        answer = self.post(op, **fields)
        assert answer.status == 200, (op, fields, answer)
        found: Map = answer.data
        return found

    def refused(self, op: str, status: int, code: str, /, **fields: Any) -> Answer:
        """The answer, which must be this problem."""
        answer = self.post(op, **fields)
        assert (answer.status, answer.code) == (status, code), (op, fields, answer)
        return answer

    def uploaded(self, content: bytes, name: str, kind: str) -> Answer:
        """The answer to an upload."""
        return self.ask("POST", f"/api/v1/files?name={quote(name)}", body=content, Content_Type=kind)

    def upload(self, content: bytes, name: str, kind: str) -> Map:
        """The uploaded file."""
        answer = self.uploaded(content, name, kind)
        assert answer.status == 201, answer
        found: Map = answer.data
        return found

    def file(self, file: str, method: str = "GET", **headers: str) -> Answer:
        """A file, as this user gets it."""
        return self.ask(method, f"/api/v1/files/{file}", None, body=None, **headers)

    def login(self, user: str, password: str | None = None) -> Self:
        """Show this user's token from now on."""
        fields = {"user": user} if password is None else {"user": user, "password": password}
        self.token = None
        self.user = user
        self.token = self.must("login", **fields)["token"]
        return self
