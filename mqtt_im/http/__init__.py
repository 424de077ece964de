"""Floor 3: health and metrics over HTTP, on the loop that carries everything else."""

from __future__ import annotations

from mqtt_im.http.server import HttpServer, Readiness

__all__ = ["HttpServer", "Readiness"]
