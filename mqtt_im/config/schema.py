"""Every key of the configuration: its name, type, range, default and meaning, in this one place.

From these structs come the defaults, the names of the environment variables (`environment_name`) and the reference
page (`mqtt_im.config.reference`). A field's description is one or two sentences for the person who runs the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, field

ENVIRONMENT_PREFIX = "MQTT_IM__"


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


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where messages are kept, and for how long."""

    url: Annotated[
        str,
        Meta(
            description="The database that all nodes share, `postgresql://user:password@host/database`; several hosts, with "
            "commas, where one may take over from another. Empty: SQLite in `data_dir`."
        ),
    ] = ""
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(description="SQLite: `full` survives power loss; `normal` survives a killed process only."),
    ] = "full"
    retention_days: Annotated[
        int, Meta(ge=0, description="Days after which messages that every device has got are removed; 0: kept for ever.")
    ] = 0
    retention_messages: Annotated[
        int, Meta(ge=0, description="Newest messages of each conversation that are kept, however young older ones are; 0: all.")
    ] = 0
    device_expiry_days: Annotated[
        int, Meta(ge=0, description="A device unseen for so many days no longer holds back retention; 0: it always does.")
    ] = 90


class ClusterConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several servers on one database (`store.url`)."""

    node: Annotated[
        str,
        Meta(
            pattern=r"^[^\s\x00-\x1f]{0,64}$",
            description="This node's name in logs, metrics and the dashboard, unlike any other's; empty: host name and port, "
            "made once and kept in `data_dir`.",
        ),
    ] = ""
    server_reference: Annotated[
        str, Meta(description="Where clients of MQTT 5 are sent when this node stops, `host:port`; empty: nowhere.")
    ] = ""


class JwtConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logins with tokens that somebody else has signed; see docs/http.md."""

    key: Annotated[
        str,
        Meta(description="File with the key: a secret, a public key in PEM, or a set of keys (JWKS); read again on SIGHUP."),
    ] = ""
    algorithms: Annotated[
        tuple[str, ...], Meta(description="Algorithms that are accepted, of HS, RS, PS, ES with 256, 384, 512, and EdDSA.")
    ] = ("RS256", "ES256", "EdDSA")
    user_claim: Annotated[str, Meta(min_length=1, description="The claim that names the user.")] = "sub"
    issuer: Annotated[str, Meta(description="What `iss` must be; empty: not looked at.")] = ""
    audience: Annotated[str, Meta(description="What `aud` must be, or hold; empty: not looked at.")] = ""
    require_exp: Annotated[bool, Meta(description="A token without an end (`exp`) is refused.")] = True
    leeway_s: Annotated[float, Meta(ge=0, le=3600, description="Seconds by which clocks may differ.")] = 0


class HttpLoginConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logins that another system is asked about; see docs/http.md."""

    url: Annotated[str, Meta(description="Where each login is sent with POST, `http://…` or `https://…`.")] = ""
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="Seconds in which the answer must have come.")] = 5
    headers: Annotated[
        dict[str, str], Meta(description='Headers that are sent along, such as `{ Authorization = "Bearer …" }`.')
    ] = field(default_factory=dict)
    cache_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds for which a login that was allowed is not asked about again; 0: never.")
    ] = 0


class AuthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may log in."""

    mode: Annotated[
        Literal["accounts", "open", "jwt", "http"],
        Meta(
            description="`accounts`: name and password, see `mqtt-im user`. `open`: any name, no password, refused unless every "
            "listener is on loopback. `jwt`: tokens that somebody else has signed. `http`: another system is asked."
        ),
    ] = "accounts"
    admin_token: Annotated[
        str,
        Meta(description="Bearer token that may do everything over the HTTP API, its admin part included; empty: off."),
    ] = ""
    registration: Annotated[bool, Meta(description="Anybody may make an account over HTTP (`POST /api/v1/register`).")] = False
    registrations_per_hour: Annotated[int, Meta(ge=1, description="Accounts that may be made from one address in an hour.")] = 20
    jwt: JwtConfig = field(default_factory=JwtConfig)
    http: HttpLoginConfig = field(default_factory=HttpLoginConfig)
    session_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days for which the token of a login over HTTP is good; 0: until its logout.")
    ] = 30
    credential_cache_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds for which a password that was right, or wrong, is not hashed again; a change ends that at once.",
        ),
    ] = 300


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client, or all of them, may use."""

    max_packet_bytes: Annotated[
        int, Meta(ge=128, le=268_435_455, description="Largest MQTT packet; a client that sends a larger one is disconnected.")
    ] = 262_144
    max_body_bytes: Annotated[int, Meta(ge=1, description="Largest `body` of a message, encoded and unpacked.")] = 65_536
    max_connections: Annotated[int, Meta(ge=1, description="Connections at one time, of all listeners together.")] = 20_000
    max_connections_per_user: Annotated[int, Meta(ge=1, description="Connections of one user at one time.")] = 16
    max_connections_per_address: Annotated[
        int, Meta(ge=0, description="Connections from one IP address at one time; 0: no limit.")
    ] = 0
    connects_per_second_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="Connections that one IP address may open in a second, with a burst of twice that; 0: no limit. Further "
            "ones are cut; some that speak MQTT 5 are told why. Clients behind one router, or behind a proxy, share an address.",
        ),
    ] = 0
    memory_mb: Annotated[
        int,
        Meta(
            ge=100,
            description="About how many MB of memory the server takes at most, besides 6 KB for each connection. Sized by it are "
            "what the store keeps in memory (caches, pages, what is not written to the projections yet); what is held for "
            "connections (packets, frames, requests and uploads that are not whole, wills, topic aliases, answers that nobody "
            "reads): beyond that whoever has most gives way, with DISCONNECT 0x97 or 503; large publishes without an answer, "
            "large packets in flight and events that streams have not read: beyond that each user, device or stream has one at "
            "a time; and, where it is below 400, `max_queued_bytes`, `max_queued_bytes_per_user`, `max_retained_bytes` and "
            "`max_kept_session_bytes`.",
        ),
    ] = 400
    connect_timeout_s: Annotated[float, Meta(gt=0, le=3600, description="Seconds from accept to a complete CONNECT.")] = 10
    max_inflight: Annotated[
        int, Meta(ge=1, le=16_383, description="Packets without PUBACK on one connection, each way; the default `window`.")
    ] = 64
    max_write_buffer_bytes: Annotated[
        int, Meta(ge=4096, description="Bytes that wait for a client that does not read, before it is disconnected.")
    ] = 4_194_304
    max_subscriptions: Annotated[int, Meta(ge=1, description="Subscriptions of one device.")] = 1_000
    max_queued_messages: Annotated[
        int, Meta(ge=0, description="Plain MQTT messages kept for one device that is away; the oldest go first.")
    ] = 1_000
    max_queued_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Bytes of plain MQTT messages that wait or are in flight, together; above it a queue's oldest go.",
        ),
    ] = 134_217_728
    max_queued_bytes_per_user: Annotated[int, Meta(ge=1, description="The same of one user's devices together.")] = 16_777_216
    max_kept_session_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Memory for the plain subscriptions of kept sessions whose clients are away, together; an eighth of it "
            "for those of one user. Above it the sessions that have been away longest end.",
        ),
    ] = 67_108_864
    max_retained_messages: Annotated[
        int, Meta(ge=0, description="Retained messages on plain topics, of all users together; further ones are not kept.")
    ] = 10_000
    max_retained_bytes: Annotated[int, Meta(ge=1, description="The same in bytes, topics included.")] = 67_108_864
    requests_per_second: Annotated[
        int,
        Meta(
            ge=1,
            description="Requests of one user, with a burst of twice that, in units of a small `send`: 10 entries of a page, "
            "8 KiB of a body and 20 recipients count for one more each, a login for 3, a search for 10, a subscription to a "
            "presence for 2.",
        ),
    ] = 200
    group_members: Annotated[int, Meta(ge=1, description="Members of one group.")] = 5_000
    changes_per_message: Annotated[
        int, Meta(ge=0, description="Edits, reactions and reports of one message that one user may make; 0: no limit.")
    ] = 100
    reactions_per_message: Annotated[
        int, Meta(ge=0, description="Users whose reaction one message may have at one time; 0: no limit.")
    ] = 1_000
    max_page: Annotated[int, Meta(ge=1, description="Entries of one page of `sync`, `history` or `convs`.")] = 500
    forbidden_publishes_per_minute: Annotated[
        int, Meta(ge=0, description="Publishes to closed topics before a client is disconnected.")
    ] = 100
    failed_logins_per_minute: Annotated[
        int, Meta(ge=1, description="Failed logins from one IP address before its further ones are refused unseen for a while.")
    ] = 30
    failed_logins_per_minute_per_account: Annotated[
        int,
        Meta(
            ge=1,
            description="Failed logins to one account, from wherever, before passwords from where some failed are refused unseen "
            "for a while. Who was let in before is not, and a password that comes back is looked at, four a second.",
        ),
    ] = 30
    session_expiry_s: Annotated[
        int,
        Meta(
            ge=1,
            le=2_147_483_647,
            description="The longest that an MQTT session is kept without its client; MQTT 5 clients may ask for less, those of "
            "3.1.1 with clean session 0 have it whole.",
        ),
    ] = 7_776_000
    max_keepalive_s: Annotated[
        int,
        Meta(ge=0, le=65_535, description="The longest keep-alive of an MQTT 5 client, which is told so; 0: as it likes."),
    ] = 0
    drain_s: Annotated[float, Meta(ge=0, le=3600, description="Seconds that a stopping server gives to what was received.")] = 10


class MessagingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules of conversations."""

    new_members_see_history: Annotated[bool, Meta(description="Who joins a group may read what came before.")] = False
    edit_window_s: Annotated[
        int, Meta(ge=-1, description="Seconds in which a message may be edited or recalled; 0: never, -1: always.")
    ] = 86_400
    blocked_senders: Annotated[
        Literal["refuse", "drop"],
        Meta(
            description="What becomes of a direct message to a user who has blocked its sender. `refuse`: the sender gets the "
            "`error` `blocked`. `drop`: the sender gets `sent` and keeps the message, and nobody else ever sees it."
        ),
    ] = "refuse"


class QuotaConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each user may keep; 0: no limit. Who has more already keeps it, and gets no further. `mqtt-im user show` tells."""

    messages: Annotated[
        int, Meta(ge=0, description="Messages that the user has sent, as long as retention has not taken them.")
    ] = 0
    bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Bytes of what they say now: bodies, `push`, newest edits, results of reports; not of recalled ones.",
        ),
    ] = 0
    groups: Annotated[
        int, Meta(ge=0, description="Groups that the user is in; and as many may there be at one time that the user has made.")
    ] = 1_000
    devices: Annotated[int, Meta(ge=0, description="Registered devices.")] = 100
    blocks: Annotated[
        int,
        Meta(
            ge=0, description="Users whom the user blocks; and as many conversations may be muted, those whose time is over too."
        ),
    ] = 10_000


class SearchConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Full-text search of one's own conversations."""

    enabled: Annotated[
        bool,
        Meta(
            description="Messages are indexed in `search.db`, which is made from the log. `false`: that file is removed, and the "
            "request `search` is not known."
        ),
    ] = True


class PushConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Webhooks that wake users who have no connected device; see docs/webhooks.md."""

    url: Annotated[str, Meta(description="Where pushes are sent with POST, `http://…` or `https://…`; empty: off.")] = ""
    secret: Annotated[str, Meta(description="The key of the signature that every push carries; needed with `url`.")] = ""
    delay_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds in which a device may still come and take a message, before a push.")
    ] = 2
    coalesce_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds between two pushes for one user; all that comes meanwhile is one push."),
    ] = 5
    include_body: Annotated[bool, Meta(description="Pushes hold the bodies of messages.")] = False
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="Seconds in which the receiver must have answered.")] = 10
    max_attempts: Annotated[
        int,
        Meta(ge=1, le=1000, description="Attempts before a push is put aside; see `mqtt-im hooks`. 16 take about four hours."),
    ] = 16


class WebPushConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Notifications of browsers, for users who have no connected device; see docs/web.md."""

    contact: Annotated[
        str,
        Meta(
            description="How push services reach who runs this server, `mailto:…` or `https://…` (RFC 8292); empty: off. "
            "The server's key for them is made once, in `data_dir/webpush.pem`."
        ),
    ] = ""
    services: Annotated[
        tuple[str, ...],
        Meta(
            description="Push services that browsers may name, and no others are ever called: hosts, `*.` for all below one, "
            "reached by https; or an origin such as `http://127.0.0.1:9000`."
        ),
    ] = ("fcm.googleapis.com", "updates.push.services.mozilla.com", "web.push.apple.com", "*.notify.windows.com")
    delay_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds in which a device may still come and take a message, before a push.")
    ] = 2
    coalesce_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds between two pushes for one user; all that comes meanwhile is one push."),
    ] = 5
    include_body: Annotated[
        bool, Meta(description="Notifications show the beginning of the message. It is encrypted; push services can't read it.")
    ] = True
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="Seconds in which a push service must have answered.")] = 10
    max_attempts: Annotated[
        int, Meta(ge=1, le=1000, description="Attempts before a push is put aside. 16 take about four hours.")
    ] = 16


class HooksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Webhooks that tell bots and other programs what happens; see docs/webhooks.md."""

    url: Annotated[str, Meta(description="Where events are sent with POST, `http://…` or `https://…`; empty: off.")] = ""
    secret: Annotated[str, Meta(description="The key of the signature that every event carries; needed with `url`.")] = ""
    events: Annotated[tuple[Literal["message", "presence", "group"], ...], Meta(description="The events that are sent.")] = (
        "message",
        "presence",
        "group",
    )
    include_body: Annotated[bool, Meta(description="The event `message` holds the message's body.")] = False
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="Seconds in which the receiver must have answered.")] = 10
    max_attempts: Annotated[
        int,
        Meta(ge=1, le=1000, description="Attempts before an event is put aside; see `mqtt-im hooks`. 16 take about four hours."),
    ] = 16


class FilesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files that users upload over HTTP and send in messages."""

    url: Annotated[
        str,
        Meta(
            description="Where contents are: empty for `data_dir/files`, `file:///folder`, or `s3://bucket/prefix` (extra `s3`)."
        ),
    ] = ""
    endpoint: Annotated[
        str, Meta(description="URL of an S3 store that is not Amazon's. Credentials come from the usual AWS variables.")
    ] = ""
    max_bytes: Annotated[int, Meta(ge=1, description="Bytes of one file.")] = 26_214_400
    quota_bytes: Annotated[int, Meta(ge=0, description="Bytes of all files of one user; 0 = no bound.")] = 1_073_741_824
    types: Annotated[
        tuple[str, ...], Meta(description='Media types that are taken, such as `["image/*", "application/pdf"]`; empty for all.')
    ] = ()


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes to stderr."""

    format: Annotated[Literal["text", "json"], Meta(description="`text` for people, `json` for one JSON object a line.")] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important level that is shown.")
    ] = "info"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration; `Config()` is a valid one."""

    data_dir: Annotated[
        str, Meta(description="Folder of all that must survive, from where the server is started; made where it is missing.")
    ] = "var"
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    websocket: WebsocketConfig = field(default_factory=WebsocketConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    messaging: MessagingConfig = field(default_factory=MessagingConfig)
    quota: QuotaConfig = field(default_factory=QuotaConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    push: PushConfig = field(default_factory=PushConfig)
    webpush: WebPushConfig = field(default_factory=WebPushConfig)
    hooks: HooksConfig = field(default_factory=HooksConfig)
    files: FilesConfig = field(default_factory=FilesConfig)
    log: LogConfig = field(default_factory=LogConfig)


class Key(Struct, frozen=True, kw_only=True):
    """One key of the configuration."""

    name: str
    """With its sections: `mqtt.tls.bind`."""
    type: Any
    """What a value is converted to, with its range."""
    plain_type: Any
    """The same without its range and description."""
    default: Any
    description: str

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "__")


def is_section(type_: Any) -> bool:
    """Whether a field of this type is a table of the file."""
    return isinstance(type_, type) and issubclass(type_, Struct)


def sections(struct: type[Struct] = Config, name: str = "") -> Iterator[tuple[str, type[Struct]]]:
    """Every section below `struct`, with its full name, in the order of the file; the top one is named `""`."""
    yield name, struct
    for entry in msgspec.structs.fields(struct):
        if is_section(entry.type):
            yield from sections(entry.type, f"{name}.{entry.name}" if name else entry.name)


def keys_of(name: str, struct: type[Struct]) -> Iterator[Key]:
    """The keys that stand in one section itself."""
    for entry in msgspec.structs.fields(struct):
        if is_section(entry.type):
            continue
        assert get_origin(entry.type) is Annotated
        plain, meta = get_args(entry.type)[:2]
        yield Key(
            name=f"{name}.{entry.name}" if name else entry.name,
            type=entry.type,
            plain_type=plain,
            default=entry.default if entry.default is not msgspec.NODEFAULT else entry.default_factory(),
            description=meta.description,
        )


KEYS: dict[str, Key] = {key.name: key for name, struct in sections() for key in keys_of(name, struct)}
SECTIONS: frozenset[str] = frozenset(name for name, _ in sections() if name)
