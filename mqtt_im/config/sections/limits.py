"""What clients may use and keep, and the rules of conversations."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mqtt_im.shares import DEFAULT_MB


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
            "reads): beyond that whoever has most gives way, with DISCONNECT 0x97 or 503; what devices were offered and have not "
            "acknowledged: beyond that it is read from the store again if it has to be sent again; large publishes without an "
            "answer, large packets in flight and events that streams have not read: beyond that each user, device or stream has "
            "one at a time; and, where it is below 300, `max_queued_bytes`, `max_queued_bytes_per_user`, `max_retained_bytes` "
            "and `max_kept_session_bytes`.",
        ),
    ] = DEFAULT_MB
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
    ] = 100_663_296
    max_queued_bytes_per_user: Annotated[int, Meta(ge=1, description="The same of one user's devices together.")] = 16_777_216
    max_kept_session_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Memory for the plain subscriptions of kept sessions whose clients are away, together; an eighth of it "
            "for those of one user. Above it the sessions that have been away longest end.",
        ),
    ] = 50_331_648
    max_retained_messages: Annotated[
        int, Meta(ge=0, description="Retained messages on plain topics, of all users together; further ones are not kept.")
    ] = 10_000
    max_retained_bytes: Annotated[int, Meta(ge=1, description="The same in bytes, topics included.")] = 50_331_648
    requests_per_second: Annotated[
        int,
        Meta(
            ge=1,
            description="Requests of one user, with a burst of twice that, in units of a small `send`: 10 entries of a page, "
            "8 KiB of a body, 256 KiB of a file that comes, 1 MiB of one that is read, 20 recipients, and 64 KiB of what "
            "is sent at once to more than 20 who are connected (each item as "
            "8 KiB more than it has) count for one more each, a login for 3, a search for 10, a subscription to a presence "
            "for 2.",
        ),
    ] = 200
    group_members: Annotated[
        int,
        Meta(
            ge=1,
            description="Members of one group. It knows of 25,000 more who have left, or were removed; then nobody new may come.",
        ),
    ] = 5_000
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
        int,
        Meta(
            ge=0,
            description="Groups that the user has made and that are there; and as many may others have brought the user into, "
            "beside them, so that nobody takes the room for one's own.",
        ),
    ] = 1_000
    devices: Annotated[int, Meta(ge=0, description="Registered devices.")] = 100
    blocks: Annotated[
        int,
        Meta(
            ge=0, description="Users whom the user blocks; and as many conversations may be muted, those whose time is over too."
        ),
    ] = 10_000
