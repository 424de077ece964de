"""What starlette and uvicorn take to answer an empty POST: `python -m bench.http.stock PORT`."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def _answer(_: Request) -> Response:
    return Response(b"{}", media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/api/v1/send", _answer, methods=["POST"])]),
        port=int(sys.argv[1]),
        http="h11",  # as our listener's
        loop="uvloop",
        log_level="critical",
        access_log=False,
    )
