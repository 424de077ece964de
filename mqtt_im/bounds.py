"""What the configuration says to the parts that know nothing of it: the bounds that rules, retention and bridge obey."""

from __future__ import annotations

from mqtt_im.bridge.settings import BridgeSettings
from mqtt_im.config import Config
from mqtt_im.core.rules import Limits as RuleLimits
from mqtt_im.store.policy import Policy


def rule_limits(config: Config) -> RuleLimits:
    """The bounds that the rules of messaging obey."""
    return RuleLimits(
        group_members=config.limits.group_members,
        edit_window_s=config.messaging.edit_window_s,
        new_members_see_history=config.messaging.new_members_see_history,
        drop_blocked=config.messaging.blocked_senders == "drop",
        changes_per_message=config.limits.changes_per_message,
        reactions_per_message=config.limits.reactions_per_message,
        quota_messages=config.quota.messages,
        quota_bytes=config.quota.bytes,
        quota_groups=config.quota.groups,
        quota_blocks=config.quota.blocks,
        quota_devices=config.quota.devices,
    )


def retention_policy(config: Config) -> Policy:
    """What is kept, and how long."""
    store = config.store
    return Policy(
        retention_days=store.retention_days,
        retention_messages=store.retention_messages,
        device_expiry_days=store.device_expiry_days,
    )


def bridge_settings(config: Config) -> BridgeSettings:
    """The bounds that the bridge obeys."""
    limits = config.limits
    return BridgeSettings(
        max_inflight=limits.max_inflight,
        max_packet_bytes=limits.max_packet_bytes,
        max_body_bytes=limits.max_body_bytes,
        requests_per_second=limits.requests_per_second,
        max_page=limits.max_page,
        memory_mb=limits.memory_mb,
    )
