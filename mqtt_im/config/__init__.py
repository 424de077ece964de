"""The configuration: every key with its doc and default (`schema`), read from file, environment and `--set` (`load`)."""

from __future__ import annotations

from mqtt_im.config.addresses import Address, parse_bind
from mqtt_im.config.load import environment_overrides, load
from mqtt_im.config.schema import (
    KEYS,
    AuthConfig,
    ClusterConfig,
    Config,
    FilesConfig,
    HooksConfig,
    HttpConfig,
    HttpLoginConfig,
    HttpTlsConfig,
    JwtConfig,
    LimitsConfig,
    LogConfig,
    MessagingConfig,
    MqttConfig,
    PushConfig,
    StoreConfig,
    TlsConfig,
    WebPushConfig,
    WebsocketConfig,
)

__all__ = [
    "KEYS",
    "Address",
    "AuthConfig",
    "ClusterConfig",
    "Config",
    "FilesConfig",
    "HooksConfig",
    "HttpConfig",
    "HttpLoginConfig",
    "HttpTlsConfig",
    "JwtConfig",
    "LimitsConfig",
    "LogConfig",
    "MessagingConfig",
    "MqttConfig",
    "PushConfig",
    "StoreConfig",
    "TlsConfig",
    "WebPushConfig",
    "WebsocketConfig",
    "environment_overrides",
    "load",
    "parse_bind",
]
