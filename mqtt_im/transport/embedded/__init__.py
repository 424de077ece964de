"""The embedded broker: amqtt, with connections, delivery and storage of our own under it."""

from mqtt_im.transport.embedded.facade import EmbeddedTransport

__all__ = ["EmbeddedTransport"]
