"""The whole configuration: its sections put together, and each of its keys by name.

From the structs of `sections` come the defaults, the names of the environment variables (`Key.environment`) and the reference
page (`mqtt_im.config.reference`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, field

from mqtt_im.config.sections.limits import LimitsConfig, MessagingConfig, QuotaConfig
from mqtt_im.config.sections.listeners import HttpConfig, MqttConfig, WebsocketConfig
from mqtt_im.config.sections.logins import AuthConfig
from mqtt_im.config.sections.storage import ClusterConfig, FilesConfig, SearchConfig, StoreConfig
from mqtt_im.config.sections.webhooks import HooksConfig, PushConfig, WebPushConfig

ENVIRONMENT_PREFIX = "MQTT_IM__"


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
