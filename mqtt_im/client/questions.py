"""Everything that an app can ask. Questions need the network, and an answer in time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .message import Conversation, Message, Page

ANSWER_S = 10.0


class Questions(ABC):
    """Each raises `Offline` where there is no answer within `timeout` seconds, `RequestFailed` (with `code`) for a refusal."""

    @abstractmethod
    async def request(self, /, op: str, *, timeout: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        """Any request of the protocol by its name; the reply as a map."""

    @abstractmethod
    def conversation_with(self, name: str) -> str:
        """The id of the conversation with a user; of a group, or of a conversation, that itself."""

    async def history(
        self,
        conv: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        timeout: float = ANSWER_S,
    ) -> Page[Message]:
        """Messages of a conversation, oldest first.

        They are the ones next after the seq `after`, else the last before `before`, else the newest; `.more` says whether there
        are more that way.
        """
        fields = _given(conv=self.conversation_with(conv), before=before, after=after, limit=limit)
        return _messages(await self.request("history", timeout=timeout, **fields))

    async def search(
        self,
        query: str,
        *,
        conv: str | None = None,
        before: int | None = None,
        limit: int | None = None,
        timeout: float = ANSWER_S,
    ) -> Page[Message]:
        """Messages of the user's conversations that hold all words of `query`, newest first; `before` is a `ts`."""
        named = None if conv is None else self.conversation_with(conv)
        fields = _given(query=query, conv=named, before=before, limit=limit)
        return _messages(await self.request("search", timeout=timeout, **fields))

    async def conversations(
        self, *, after: str | None = None, limit: int | None = None, timeout: float = ANSWER_S
    ) -> Page[Conversation]:
        """The user's conversations, latest activity first; `after` takes the `.next` of the page before."""
        reply = await self.request("convs", timeout=timeout, **_given(after=after, limit=limit))
        found = [Conversation(each) for each in reply.get("convs", ())]
        following = reply.get("next") or (found[-1].conv if found and reply.get("more") else None)
        return Page(found, more=bool(reply.get("more")), following=following)

    async def group_info(
        self, group: str, *, after: str | None = None, limit: int | None = None, timeout: float = ANSWER_S
    ) -> dict[str, Any]:
        """Name, head and members of a group."""
        return await self.request("group.info", timeout=timeout, **_given(group=group, after=after, limit=limit))

    async def devices(self, *, timeout: float = ANSWER_S) -> dict[str, Any]:
        """The user's devices: `{"devices": [{"device", "pos", "online", "last_seen"}]}`."""
        return await self.request("devices", timeout=timeout)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _messages(reply: dict[str, Any]) -> Page[Message]:
    return Page([Message(each) for each in reply.get("items", ())], more=bool(reply.get("more")))
