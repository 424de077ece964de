"""Where the server listens: MQTT, MQTT over WebSocket, HTTP, each also over TLS."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field


class TlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MQTT over TLS, on a listener of its own."""

    bind: Annotated[str, Meta(description="Where to listen, `host:port` or `[::1]:port`; empty: off.")] = ""
    cert: Annotated[str, Meta(description="PEM file with the server's certificate and its chain; read again on SIGHUP.")] = ""
    key: Annotated[str, Meta(description="PEM file with the certificate's private key; read again on SIGHUP.")] = ""
    client_ca: Annotated[
        str,
        Meta(description="PEM file of the authority that signs clients' certificates. Set: one is required; its CN is the user."),
    ] = ""
    crl: Annotated[
        str,
        Meta(
            description="PEM file with the authority's list of revoked certificates, which may not connect; with `client_ca`. An "
            "expired list lets nobody in. Read again on SIGHUP."
        ),
    ] = ""


class MqttConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MQTT over plain TCP, and what is common to all MQTT listeners."""

    bind: Annotated[
        str, Meta(description="Where to listen, `host:port` or `[::1]:port`; empty: off. Port 0 takes a free one.")
    ] = "127.0.0.1:1883"
    prefix: Annotated[str, Meta(description="The topics below it belong to the messaging protocol.")] = "im/v1"
    plain_topics: Annotated[
        tuple[str, ...],
        Meta(
            description='Filters open to every user as plain MQTT, e.g. `["sensors/#"]`; `!` closes again: `["#", "!secret/#"]`.'
        ),
    ] = ()
    plugins: Annotated[
        dict[str, dict[str, Any]],
        Meta(
            description="Plugins of amqtt by their dotted names, each with a table of its own options (which may be empty): "
            '`[mqtt.plugins."my_package.MyPlugin"]`. They see logins, which they may refuse, and plain topics.'
        ),
    ] = field(default_factory=dict)
    proxy_protocol: Annotated[
        bool,
        Meta(
            description="Connections over TCP and TLS begin with a PROXY header, version 2, of a proxy that tells the client's "
            "address; others are cut."
        ),
    ] = False
    tls: TlsConfig = field(default_factory=TlsConfig)


class WebsocketConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MQTT over WebSocket (subprotocol `mqtt`)."""

    bind: Annotated[str, Meta(description="Where to listen, `host:port` or `[::1]:port`; empty: off.")] = "127.0.0.1:8083"
    path: Annotated[str, Meta(description="The path of the WebSocket; any other is answered with 404.")] = "/mqtt"
    origins: Annotated[
        tuple[str, ...],
        Meta(description='Web pages that may connect, by `Origin`, e.g. `["https://chat.example"]`; empty: every page.'),
    ] = ()


class HttpTlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTP over TLS, on a listener of its own with the same pages."""

    bind: Annotated[str, Meta(description="Where to listen, `host:port` or `[::1]:port`; empty: off.")] = ""
    cert: Annotated[str, Meta(description="PEM file with the server's certificate and its chain; read again on SIGHUP.")] = ""
    key: Annotated[str, Meta(description="PEM file with the certificate's private key; read again on SIGHUP.")] = ""


class HttpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP API, the pages, health and metrics; and MQTT over WebSocket at `websocket.path`."""

    bind: Annotated[str, Meta(description="Where to listen, `host:port` or `[::1]:port`; empty: off.")] = "127.0.0.1:8080"
    origins: Annotated[
        tuple[str, ...],
        Meta(description='Web pages of other origins that may use the API (CORS), e.g. `["https://app.example"]`, or `["*"]`.'),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and networks of proxies whose `X-Forwarded-For` names the client, for HTTP and WebSocket, "
            'e.g. `["127.0.0.1", "10.0.0.0/8"]`.'
        ),
    ] = ()
    web: Annotated[bool, Meta(description="Serve the web chat at `/` and the dashboard at `/admin`.")] = True
    metrics_bind: Annotated[
        str, Meta(description="An address of its own for `/metrics`, which then is nowhere else; it has the health pages too.")
    ] = ""
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="HTTP connections at one time, event streams included; above it idle ones are closed, and further ones "
            "get 503. Health has places of its own.",
        ),
    ] = 12_000
    tls: HttpTlsConfig = field(default_factory=HttpTlsConfig)
