"""What all tests share: how hard hypothesis tries, and which parts of the system a test needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Other work on the machine must not fail a test, so there is no deadline; `make test-long` chooses "long".
settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

HEADERS = {"libmodbus": Path("/usr/include/modbus/modbus.h")}
"""Parts that are no programs: where their header is."""


def missing(part: str) -> bool:
    """Whether a program (or one of :data:`HEADERS`) is not installed."""
    if part in HEADERS:
        return not HEADERS[part].exists()
    # Debian keeps servers such as mosquitto where a user's PATH may not look.
    return shutil.which(part, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.system("mosquitto", …)``: skipped, with the reason, where one of the parts is missing."""
    needed = [part for mark in item.iter_markers("system") for part in mark.args]
    if absent := [part for part in needed if missing(part)]:
        pytest.skip(f"not installed: {', '.join(absent)}")
