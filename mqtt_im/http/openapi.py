"""`openapi.json`: what the API takes and answers (OpenAPI 3.1), made from the request types; and the page that shows it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im import __version__
from mqtt_im.bridge.calls import NEEDS_ID
from mqtt_im.http.admin.maintenance import NewBackup
from mqtt_im.http.admin.users import NewPassword, NewToken, NewUser
from mqtt_im.http.errors import STATUS
from mqtt_im.http.logins import Credentials
from mqtt_im.http.requests import OPS
from mqtt_im.http.tickets import Wanted
from mqtt_im.http.webpush import Subscribe, Unsubscribe
from mqtt_im.protocol import requests as rq

Schema = dict[str, Any]

_USER: Final = r"^(?!\.{1,2}$)[A-Za-z0-9_.\-]{1,64}$"
_GROUP: Final = r"^#(?!\.{1,2}$)[A-Za-z0-9_.\-]{1,64}$"
_TO: Final = r"^#?(?!\.{1,2}$)[A-Za-z0-9_.\-]{1,64}$"
_CONV: Final = r"^(#[A-Za-z0-9_.\-]{1,64}|[A-Za-z0-9_.\-]{1,64}:[A-Za-z0-9_.\-]{1,64})$"
_FORMS: Final = {"to": _TO, "conv": _CONV, "group": _GROUP, "user": _USER, "device": _USER}
"""The form of what these fields name."""

_ANSWERS: Final[dict[str, str]] = {
    "send": "Sent",
    "read": "Nothing",
    "typing": "Nothing",
    "ack": "Nothing",
    "hello": "Welcome",
    "sync": "Page",
    "history": "Page",
    "search": "Page",
    "convs": "Conversations",
}
"""The answer to each op; of all others `Ok`."""

_ADMIN: Final[tuple[tuple[str, str, str, type[Any] | None, int], ...]] = (
    ("get", "users", "List the users", None, 200),
    ("post", "users", "Make an account", NewUser, 201),
    ("get", "users/{user}", "One user", None, 200),
    ("delete", "users/{user}", "Remove an account; with erase=true its inbox too", None, 204),
    ("put", "users/{user}/password", "Change a password", NewPassword, 204),
    ("get", "users/{user}/tokens", "List a user's tokens", None, 200),
    ("post", "users/{user}/tokens", "Make a token", NewToken, 201),
    ("delete", "users/{user}/tokens/{token}", "Revoke a token", None, 204),
    ("get", "users/{user}/devices", "List a user's devices", None, 200),
    ("delete", "users/{user}/devices/{device}", "Forget a device", None, 204),
    ("post", "users/{user}/disconnect", "Close a user's connections", None, 204),
    ("get", "connections", "List the connections", None, 200),
    ("get", "conversations/{conv}", "Members and head of a conversation", None, 200),
    ("get", "messages/{conv}/{seq}", "One message's story", None, 200),
    ("get", "stats", "The figures", None, 200),
    ("get", "stats/stream", "The figures each second, as server-sent events", None, 200),
    ("post", "maintenance/backup", "Make a backup", NewBackup, 201),
    ("post", "maintenance/compact", "Remove what retention lets go", None, 200),
)
_LISTS: Final = ("users", "users/{user}/tokens", "users/{user}/devices", "connections")


def document() -> Schema:
    """The whole description."""
    kinds = [*OPS.values(), Credentials, Wanted, Subscribe, Unsubscribe, NewUser, NewPassword, NewToken, NewBackup]
    refs, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    del refs
    for kind in OPS.values():
        _as_body(schemas[kind.__name__], kind)
    schemas.update(_answers())
    paths: dict[str, Any] = {
        f"/api/v1/{op}": {"post": _operation(op, _first_line(kind), kind, _ANSWERS.get(op, "Ok"), keyed=kind in NEEDS_ID)}
        for op, kind in OPS.items()
    }
    paths.update(_others())
    for method, path, summary, asked, status in _ADMIN:
        paths.setdefault(f"/api/v1/admin/{path}", {})[method] = _admin(method, path, summary, asked, status)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MQTT-IM", "version": __version__, "summary": "The requests of the messaging protocol, over HTTP."},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _as_body(schema: Schema, kind: type[rq.Request]) -> None:
    """Make of a request's schema that of a body: without `op`, and with an `id` that may be left to the server."""
    schema["properties"].pop("op", None)
    schema["required"] = [name for name in schema.get("required", ()) if name not in ("op", "id")]
    if not schema["required"]:
        del schema["required"]
    if kind is rq.Hello:
        schema["properties"] = {}
    for name, form in _FORMS.items():
        field = schema["properties"].get(name)
        if field is not None:
            for part in field.get("anyOf", [field]):
                if part.get("type") == "string":
                    part["pattern"] = form
    members = schema["properties"].get("members")
    if members is not None and "items" in members:
        members["items"]["pattern"] = _USER


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0]


def _map(required: dict[str, Schema], **more: Schema) -> Schema:
    return {"type": "object", "properties": {**required, **more}, "required": list(required)}


def _answers() -> dict[str, Schema]:
    text, number, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    items = {"type": "array", "items": {"type": "object"}}
    end: Schema = {"type": ["integer", "null"], "description": "Milliseconds since 1970; null: never."}
    problem: dict[str, Schema] = {"type": text, "title": text, "status": number, "code": {"enum": sorted(STATUS)}, "detail": text}
    return {
        "Sent": _map({"id": text, "conv": text, "seq": number, "ts": number}, dup=flag),
        "Ok": {"type": "object", "properties": {"id": text, "dup": flag}},
        "Nothing": {"type": "object", "maxProperties": 0},
        "Page": _map({"items": items, "more": flag}, conv=text, id=text),
        "Conversations": _map({"convs": items, "more": flag}, next=text, id=text),
        "Welcome": _map({"epoch": text, "head": number, "floor": number, "limits": {"type": "object"}, "ts": number}),
        "Session": _map({"user": text, "token": text, "expires": end}),
        "Ticket": _map({"url": text, "expires": number}),
        "Problem": _map(problem),
    }


def _content(name: str, kind: str = "application/json") -> Schema:
    return {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _refusals(*statuses: int) -> Schema:
    found = statuses or tuple(sorted({*STATUS.values(), 408}))
    return {
        str(status): {"description": "Refused", "content": _content("Problem", "application/problem+json")} for status in found
    }


def _body(kind: type[Any]) -> Schema:
    return {"required": True, "content": _content(kind.__name__)}


def _operation(name: str, summary: str, kind: type[Any], answer: str, status: int = 200, *, keyed: bool = False) -> Schema:
    parameters: list[Schema] = [
        {
            "name": "X-Act-As",
            "in": "header",
            "schema": {"type": "string", "pattern": _USER},
            "description": "With the admin token.",
        }
    ]
    if keyed:
        id_schema = {"type": "string", "minLength": 1, "maxLength": 64}
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": id_schema, "description": "In place of `id`."})
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["requests"],
        "parameters": parameters,
        "requestBody": _body(kind),
        "responses": {str(status): {"description": "Done", "content": _content(answer)}, **_refusals()},
    }


def _others() -> dict[str, Any]:
    login = {
        "operationId": "login",
        "summary": "A token for a password",
        "tags": ["logins"],
        "security": [],
        "requestBody": _body(Credentials),
        "responses": {"200": {"description": "Let in", "content": _content("Session")}, **_refusals()},
    }
    register = {**login, "operationId": "register", "summary": "A new account"}
    register["responses"] = {"201": {"description": "Made", "content": _content("Session")}, **_refusals()}
    logout = {
        "operationId": "logout",
        "summary": "The token, and the connections that use it, end",
        "tags": ["logins"],
        "responses": {"204": {"description": "Ended"}, **_refusals()},
    }
    ticket = _operation("ticket", "A URL for where no header can be sent", Wanted, "Ticket", 201)
    query = [
        {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}},
        {"name": "device", "in": "query", "schema": {"type": "string", "pattern": _USER}},
        {"name": "ticket", "in": "query", "schema": {"type": "string"}},
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"}},
    ]
    stream = {"description": "Events without end", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    events = {
        "operationId": "events",
        "summary": "The inbox, or a device's delivery, as server-sent events",
        "tags": ["events"],
        "parameters": query,
        "responses": {"200": stream, **_refusals()},
    }
    return {
        "/api/v1/login": {"post": {**login, "tags": ["logins"]}},
        "/api/v1/logout": {"post": logout},
        "/api/v1/register": {"post": register},
        "/api/v1/ticket": {"post": {**ticket, "tags": ["events"]}},
        "/api/v1/events": {"get": events},
        **_push(),
        **_files(),
    }


def _push() -> dict[str, Any]:
    told = (
        ("push.subscribe", "A browser is told of what comes while its device is away", Subscribe),
        ("push.unsubscribe", "It is told nothing any more", Unsubscribe),
    )
    made = {name: _operation(name, summary, kind, "Nothing") for name, summary, kind in told}
    return {f"/api/v1/{name}": {"post": {**operation, "tags": ["push"]}} for name, operation in made.items()}


def _files() -> dict[str, Any]:
    file = _map({name: {"type": "string"} for name in ("id", "name", "type", "sha256")} | {"size": {"type": "integer"}})
    made = {"description": "On disk", "content": {"application/json": {"schema": file}}}
    whole = {"description": "The file", "content": {"*/*": {}}}
    path = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    upload = {
        "operationId": "upload",
        "summary": "Upload a file; the body is the file",
        "tags": ["files"],
        "parameters": [{"name": "name", "in": "query", "schema": {"type": "string", "maxLength": 255}}],
        "requestBody": {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {"201": made, **_refusals()},
    }
    download = {
        "operationId": "download",
        "summary": "A file, for who may read a message that carries it",
        "tags": ["files"],
        "parameters": path,
        "responses": {"200": whole, "206": whole, "304": {"description": "As it was"}, **_refusals()},
    }
    return {"/api/v1/files": {"post": upload}, "/api/v1/files/{id}": {"get": download}}


def _admin(method: str, path: str, summary: str, kind: type[Any] | None, status: int) -> Schema:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters: list[Schema] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    if method == "get" and path in _LISTS:
        parameters.append({"name": "after", "in": "query", "schema": {"type": "string"}, "description": "Takes `next`."})
        parameters.append({"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999}})
    if method == "delete" and path == "users/{user}":
        parameters.append({"name": "erase", "in": "query", "schema": {"enum": ["true", "false"]}})
    done: Schema = {"description": "Done"}
    if status != 204:
        kind_of = "text/event-stream" if path.endswith("/stream") else "application/json"
        done["content"] = {kind_of: {"schema": {"type": "string" if kind_of.startswith("text") else "object"}}}
    made: Schema = {
        "operationId": f"{method} {path}",
        "summary": summary,
        "tags": ["administration"],
        "parameters": parameters,
        "responses": {str(status): done, **_refusals()},
    }
    if kind is not None:
        made["requestBody"] = _body(kind)
    return made


def openapi_routes() -> list[Route]:
    """Where the description is; `pages` has the one that shows it."""
    data = msgspec.json.encode(document())

    async def show(_: Request) -> Response:
        return Response(data, headers={"Cache-Control": "no-cache"}, media_type="application/json")

    return [Route("/api/v1/openapi.json", show)]
