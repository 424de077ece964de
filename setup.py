"""The rest stands in pyproject.toml. Here the modules of `tools/compiled.txt` become C, where `MQTT_IM_COMPILE=1` asks for it."""

import os
from pathlib import Path

from setuptools import Extension, setup


def compiled() -> list[Extension]:
    """What mypyc makes of the modules in the list; nothing where nobody asks."""
    if os.environ.get("MQTT_IM_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    modules = Path("tools/compiled.txt").read_text().split()
    found: list[Extension] = mypycify(modules, opt_level="2", debug_level="0", multi_file=True)
    return found


setup(ext_modules=compiled())
