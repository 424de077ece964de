"""Files over the server's HTTP side. Everything here blocks, and is called in threads."""

from __future__ import annotations

import contextlib
import http.client
import json
import mimetypes
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from .errors import Offline, RequestFailed

_TIMEOUT_S: Final = 30.0
"""Of each step: a transfer may take as long as it goes on."""
_TRIES: Final = 5
_CHUNK: Final = 64 * 1024


class Files:
    """Uploads and downloads of one user. Raises `ValueError` where `url` is none of HTTP."""

    def __init__(self, url: str, user: str, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of the HTTP side: expected http:// or https://, and a host")
        self._host = parts.hostname
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._user = user
        self._token: str | None = None
        self._lock = threading.Lock()

    def upload(self, path: Path, password: str | None, name: str | None, kind: str | None) -> str:
        """The id under which the server has the file at `path`. Raises `RequestFailed`, `Offline`, `OSError` of the file."""
        kind = kind or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        target = f"/api/v1/files?name={quote(name or path.name)}"

        def post(token: str) -> tuple[int, dict[str, Any]]:
            with path.open("rb") as body, self._connection() as connection:
                headers = {**_bearer(token), "Content-Type": kind, "Content-Length": str(os.fstat(body.fileno()).st_size)}
                connection.request("POST", self._path + target, body=body, headers=headers)
                return _answer(connection)

        return str(self._with_token(post, password)["id"])

    def download(self, file_id: str, path: Path, password: str | None) -> None:
        """`path` holds the file when this returns, whole. Raises `RequestFailed`, `Offline`, `OSError` of the file.

        It is written beside `path` first. A transfer that breaks goes on where it was.
        """
        partial = path.with_name(path.name + ".part")
        with partial.open("wb") as target:
            tag = ""
            for tries_left in reversed(range(_TRIES)):
                try:
                    tag = self._fetch(file_id, target, tag, password)
                    break
                except Offline:
                    if not tries_left:
                        raise
        partial.replace(path)

    def _fetch(self, file_id: str, target: Any, tag: str, password: str | None) -> str:
        def get(token: str) -> tuple[int, dict[str, Any]]:
            have = target.tell()
            headers = _bearer(token)
            if have and tag:
                headers.update({"Range": f"bytes={have}-", "If-Range": tag})
            with self._connection() as connection:
                connection.request("GET", f"{self._path}/api/v1/files/{quote(file_id)}", headers=headers)
                response = connection.getresponse()
                if response.status not in (200, 206):
                    return response.status, _problem(response.read(), response.status)
                if response.status == 200:
                    target.seek(0)
                    target.truncate()
                while chunk := response.read(_CHUNK):
                    target.write(chunk)
                if response.length:
                    raise Offline("the connection ended in the middle of the file")
                return 200, {"tag": response.headers.get("ETag", "")}

        return str(self._with_token(get, password)["tag"])

    def _with_token(self, ask: Any, password: str | None) -> dict[str, Any]:
        with self._lock:
            token = self._token or self._login(password)
            status, answer = ask(token)
            if status == 401 and self._token is not None:  # it has expired
                self._token = None
                status, answer = ask(self._login(password))
        if status >= 400:
            raise RequestFailed(str(answer.get("code", status)), str(answer.get("detail") or answer.get("title") or ""))
        return dict(answer)

    def _login(self, password: str | None) -> str:
        body = json.dumps({"user": self._user, **({} if password is None else {"password": password})})
        with self._connection() as connection:
            connection.request("POST", f"{self._path}/api/v1/login", body=body, headers={"Content-Type": "application/json"})
            status, answer = _answer(connection)
        if status == 403 and password is not None:
            return password  # logins are another system's, and what it gives is the token
        if status >= 400:
            raise RequestFailed(str(answer.get("code", status)), str(answer.get("detail") or answer.get("title") or ""))
        self._token = str(answer["token"])
        return self._token

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=self._tls)
        )
        try:
            yield connection
        except (http.client.HTTPException, ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError) as error:
            raise Offline(f"HTTP: {error or type(error).__name__}") from error
        finally:
            connection.close()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _answer(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    response = connection.getresponse()
    body = response.read()
    return response.status, _problem(body, response.status)


def _problem(body: bytes, status: int) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"code": str(status), "detail": "the server's answer makes no sense"}
