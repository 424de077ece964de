"""Floor 3: the API, pages, health and metrics over HTTP, on the loop that carries everything else."""

from __future__ import annotations

from mqtt_im.http.server import HttpServer
from mqtt_im.http.services import Services

__all__ = ["HttpServer", "Services"]
