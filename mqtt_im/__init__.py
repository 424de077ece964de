"""An instant-messaging server that any MQTT client can trust."""

from typing import Final

__version__: Final = "0.1.0"
