"""Contents of files in an S3 store (extra `s3`, boto3): one object each, its key the prefix and the file's id.

Credentials and region come from the usual AWS variables or files. boto3's own retries stand between a hiccup and a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

from mqtt_im.protocol.errors import MqttImError

_TIMEOUT_S: Final = 10
_CONNECTIONS: Final = 16


class S3:
    """Implements `Blobs`."""

    def __init__(self, url: str, endpoint: str) -> None:
        """`s3://bucket/prefix`; `endpoint` is the URL of a store that is not Amazon's. Raises `MqttImError`."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        parts = urlsplit(url)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        config = Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "max_attempts": 3},
        )
        try:
            self._client: Any = boto3.client("s3", endpoint_url=endpoint or None, config=config)
        except (BotoCoreError, ValueError) as error:
            raise MqttImError("files", f"files.url: {error}") from error
        self._failures = (BotoCoreError, ClientError)
        self._refused = ClientError

    def put(self, file: str, path: Path) -> None:
        """See `Blobs`."""
        from boto3.exceptions import S3UploadFailedError

        try:
            self._client.upload_file(str(path), self._bucket, self._prefix + file)
        except (*self._failures, S3UploadFailedError) as error:
            raise OSError(f"the S3 store does not take it: {error}") from error
        path.unlink()

    def open(self, file: str, start: int, size: int) -> BinaryIO:
        """See `Blobs`."""
        try:
            wanted = {"Range": f"bytes={start}-{start + size - 1}"} if size else {}
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + file, **wanted)
        except self._refused as error:
            if cast(Any, error).response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                raise FileNotFoundError(file) from error
            raise OSError(f"the S3 store does not give it: {error}") from error
        except self._failures as error:
            raise OSError(f"the S3 store does not give it: {error}") from error
        return cast(BinaryIO, found["Body"])

    def remove(self, file: str) -> None:
        """See `Blobs`."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + file)
        except self._failures as error:
            raise OSError(f"the S3 store does not remove it: {error}") from error

    def all(self) -> Iterator[tuple[str, float]]:
        """See `Blobs`."""
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"][len(self._prefix) :], entry["LastModified"].timestamp()
        except self._failures as error:
            raise OSError(f"the S3 store can't be listed: {error}") from error

    def check(self) -> None:
        """See `Blobs`."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except self._failures as error:
            raise OSError(f"the S3 store can't be used: {error}") from error
