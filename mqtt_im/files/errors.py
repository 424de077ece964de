"""Why a file is not taken, or not there."""

from __future__ import annotations


class FileRefused(Exception):
    """An upload that is not taken; `code` is one of the HTTP API's, `message` says what to mend."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
