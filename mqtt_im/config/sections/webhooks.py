"""What is told to other systems: pushes, notifications of browsers, events."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

# Pushes are the same whoever is told of them.
_DelaySeconds = Annotated[
    float, Meta(ge=0, le=3600, description="Seconds in which a device may still come and take a message, before a push.")
]
_CoalesceSeconds = Annotated[
    float,
    Meta(ge=0, le=86_400, description="Seconds between two pushes for one user; all that comes meanwhile is one push."),
]


class PushConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Webhooks that wake users who have no connected device; see docs/webhooks.md."""

    url: Annotated[str, Meta(description="Where pushes are sent with POST, `http://…` or `https://…`; empty: off.")] = ""
    secret: Annotated[str, Meta(description="The key of the signature that every push carries; needed with `url`.")] = ""
    delay_s: _DelaySeconds = 2
    coalesce_s: _CoalesceSeconds = 5
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
    delay_s: _DelaySeconds = 2
    coalesce_s: _CoalesceSeconds = 5
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
