"""The internal numbers of users and conversations, by which the projections' tables speak of them."""

from __future__ import annotations

from collections.abc import Collection

from mqtt_im.compiling import mypyc_attr
from mqtt_im.store.sqlite.tables.projection import Projection


@mypyc_attr(allow_interpreted_subclasses=True)
class Numbering:
    """Numbers those that are not in the projections yet: one after the other."""

    def __init__(self, projection: Projection) -> None:
        self.next_uid, self._next_cid = projection.next_ids()

    def expect_users(self, names: Collection[str]) -> None:
        """These users are asked for next."""

    def expect_convs(self, names: Collection[str]) -> None:
        """These conversations are asked for next."""

    def user(self, name: str) -> int:
        """The number of a user who has none yet."""
        number = self.next_uid
        self.next_uid += 1
        return number

    def conv(self, name: str) -> int:
        """The number of a conversation that has none yet."""
        number = self._next_cid
        self._next_cid += 1
        return number
