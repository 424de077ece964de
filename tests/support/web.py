"""A client of the HTTP API over `http.client`: one connection, requests as maps, answers as they came."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any, Self

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


class Web:
    """A keep-alive connection, and the token that it shows."""

    def __init__(self, port: int, token: str | None = None, *, tls: ssl.SSLContext | None = None, **headers: str) -> None:
        if tls is None:
            self._connection = http.client.HTTPConnection(HOST, port, timeout=20)
        else:
            self._connection = http.client.HTTPSConnection(HOST, port, timeout=20, context=tls)
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

    def login(self, user: str, password: str | None = None) -> Self:
        """Show this user's token from now on."""
        fields = {"user": user} if password is None else {"user": user, "password": password}
        self.token = None
        self.token = self.must("login", **fields)["token"]
        return self
