"""amqtt plugins as an operator might bring them, for tests of a whole server."""

from __future__ import annotations

from dataclasses import dataclass, field

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session


class Bouncer(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Refuses the users it is configured to refuse."""

    @dataclass
    class Config:
        refused: list[str] = field(default_factory=list)

    async def authenticate(self, *, session: Session) -> bool | None:
        return session.username not in self.context.config.refused


class Owners(BaseTopicPlugin):  # type: ignore[misc]
    """Below a root, a user may publish on topics that end with the user's name only."""

    @dataclass
    class Config:
        root: str = "open"

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._root = context.config.root

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        assert session is not None
        assert topic is not None
        if action is not Action.PUBLISH or not topic.startswith(f"{self._root}/"):
            return True
        return topic.rpartition("/")[2] == str(session.username)
