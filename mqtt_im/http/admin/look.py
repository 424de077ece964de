"""Looking: who is connected, what a conversation is, and the whole story of one message."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.core.records import Reported
from mqtt_im.http.admin.guard import Guard, answer, limit_of, page
from mqtt_im.http.errors import Problem
from mqtt_im.http.services import Services
from mqtt_im.protocol.names import is_group, members_of_direct
from mqtt_im.store.queries import stories
from mqtt_im.store.queries.stories import MEMBERS, PIECE, Recipients, Story

REPORTS_UPTO = 20_000
"""So many items of its sender's inbox are looked through for what became of a message."""


class Looking:
    """Answers what only looks."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def routes(self) -> list[Route]:
        """Where they are."""
        route = self._guard.route
        return [
            *route("connections", get=self.connections),
            *route("conversations/{conv}", get=self.conversation),
            *route("messages/{conv}/{seq}", get=self.message),
        ]

    async def connections(self, services: Services, request: Request) -> Response:
        """Every connection that is logged in, at whichever node, by user and device."""
        limit, after = limit_of(services, request), request.query_params.get("after", "")
        found, silent = await services.nodes.connections(after, limit + 1)
        return page("connections", found, limit, silent)

    async def conversation(self, services: Services, request: Request) -> Response:
        """The members of a conversation, and how far it goes."""
        name = _conv(request)
        told = await services.bridge.ledger.call(lambda engine: stories.conversation(engine, name))
        if told is None:
            raise Problem("not_found", f"there is no conversation {name}")
        return answer(told)

    async def message(self, services: Services, request: Request) -> Response:
        """What became of one message, for whom."""
        name, text = _conv(request), str(request.path_params["seq"])
        if not text.isascii() or not text.isdigit() or len(text) > 16:
            raise Problem("not_found", f"there is no message {text[:32]!r} in {name}")
        ledger = services.bridge.ledger
        services.bridge.cursors.write()
        seq = int(text)
        story: Story | None = await ledger.call(lambda engine: stories.story(engine, name, seq))
        if story is None:
            raise Problem("not_found", f"there is no message {text} in {name}")
        told: dict[str, Any] = story.told
        # Piece by piece, so that nobody waits for it.
        own_pos = 0
        for start in range(0, len(story.members), MEMBERS):
            some = partial(stories.recipients, name=name, seq=seq, members=story.members[start : start + MEMBERS])
            got: Recipients = await ledger.call(some)
            told["recipients"] += got.told
            own_pos = got.positions.get(story.sender, own_pos)
        told["recipients"] += await ledger.call(lambda engine: stories.waiting(engine, name, seq))
        for start in range(own_pos, own_pos + REPORTS_UPTO, PIECE):
            look = partial(stories.reports, user=story.sender, after=start, conv=name, seq=seq)
            part: list[Reported] | None = await ledger.call(look)
            if part is None:
                break
            told["reports"] += [{"by": report.by, "state": report.state, "ts": report.ts} for report in part]
        return answer(told)


def _conv(request: Request) -> str:
    name = str(request.path_params["conv"])
    if not is_group(name) and members_of_direct(name) is None:
        raise Problem("not_found", f"there is no conversation {name[:130]!r}")
    return name
