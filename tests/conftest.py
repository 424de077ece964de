"""How thoroughly hypothesis looks: `MQTT_IM_HYPOTHESIS=long` looks for hours, the default for seconds and always alike."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("common", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
common = settings.get_profile("common")
settings.register_profile("default", common, database=None, derandomize=True)
settings.register_profile("long", common, max_examples=5_000, stateful_step_count=100)
settings.load_profile(os.environ.get("MQTT_IM_HYPOTHESIS", "default"))
