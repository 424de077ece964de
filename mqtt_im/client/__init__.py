"""The Python client of MQTT-IM: nothing sent is lost or doubled, nothing received is, whatever happens to the line or the app.

    async with Client("mqtt://127.0.0.1:1883", user="alice", store="alice.db") as im:
        sent = await im.send("bob", "hi")  # on disk; returns at once, online or not
        await sent.sent()  # the server has committed it
        async for message in im.messages():  # from where this device stopped last time
            await im.send(message.conv, f"you said {message.body}", reply_to=message.seq)

`mqtt_im.client.sync.Client` is the same without asyncio. docs/client.md is the tutorial.
"""

from .client import Client
from .errors import (
    ClientError,
    Offline,
    OutboxFull,
    Refused,
    RequestFailed,
    SendFailed,
    StoreInUse,
    StoreUnusable,
)
from .events import Edited, Event, Lost, Presence, Reacted, Recalled, Receipt, Reported, Typing, Void
from .message import Conversation, Message, Page
from .outgoing import Outgoing
from .states import State

__all__ = [
    "Client",
    "ClientError",
    "Conversation",
    "Edited",
    "Event",
    "Lost",
    "Message",
    "Offline",
    "OutboxFull",
    "Outgoing",
    "Page",
    "Presence",
    "Reacted",
    "Recalled",
    "Receipt",
    "Refused",
    "Reported",
    "RequestFailed",
    "SendFailed",
    "State",
    "StoreInUse",
    "StoreUnusable",
    "Typing",
    "Void",
]
