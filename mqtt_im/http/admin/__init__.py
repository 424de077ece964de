"""Administration, for the holder of `auth.admin_token`: `/api/v1/admin/…`. Without a token configured none of it is there."""

from __future__ import annotations

from starlette.routing import Route

from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http.admin.guard import Guard
from mqtt_im.http.admin.look import Looking
from mqtt_im.http.admin.maintenance import Maintenance
from mqtt_im.http.admin.stats import Stats
from mqtt_im.http.admin.users import Users
from mqtt_im.http.health import Readiness
from mqtt_im.http.services import Desk

__all__ = ["admin_routes"]


def admin_routes(desk: Desk, proxies: TrustedProxies, ready: Readiness) -> list[Route]:
    """Every call of the administration."""
    guard = Guard(desk, proxies)
    parts = Users(guard), Looking(guard), Stats(guard, ready), Maintenance(guard)
    return [route for part in parts for route in part.routes()]
