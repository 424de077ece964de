"""The configuration: every key with its doc and default (`sections`, put together in `schema`), and how it is read (`load`)."""

from __future__ import annotations

from mqtt_im.config.addresses import Address, parse_bind
from mqtt_im.config.load import environment_overrides, load
from mqtt_im.config.schema import KEYS, Config, LogConfig
from mqtt_im.config.sections.limits import LimitsConfig, MessagingConfig
from mqtt_im.config.sections.listeners import HttpConfig, HttpTlsConfig, MqttConfig, TlsConfig, WebsocketConfig
from mqtt_im.config.sections.logins import AuthConfig, HttpLoginConfig, JwtConfig
from mqtt_im.config.sections.storage import ClusterConfig, FilesConfig, StoreConfig
from mqtt_im.config.sections.webhooks import HooksConfig, PushConfig, WebPushConfig

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
