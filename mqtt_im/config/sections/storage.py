"""Where messages and files are kept, and for how long; whether words are found in them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


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


class SearchConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Full-text search of one's own conversations."""

    enabled: Annotated[
        bool,
        Meta(
            description="Messages are indexed in `search.db`, which is made from the log. `false`: that file is removed, and the "
            "request `search` is not known."
        ),
    ] = True


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
    quota_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Bytes of all files of one user, and for each 4 KiB of them one file, but 1,000 at least; 0 = no bound.",
        ),
    ] = 1_073_741_824
    types: Annotated[
        tuple[str, ...], Meta(description='Media types that are taken, such as `["image/*", "application/pdf"]`; empty for all.')
    ] = ()
