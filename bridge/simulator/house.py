"""The rest of the house: a load on each line that follows the time of day, with appliances that switch."""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple

from bridge.core.model import PerLine

DAY_S = 86_400.0


class Appliance(NamedTuple):
    """A load that switches: ``watts`` on each line for about ``on_s``, after about ``off_s`` within ``hours``."""

    name: str
    watts: PerLine
    on_s: float
    off_s: float
    hours: range = range(24)


APPLIANCES = (
    Appliance("refrigerator", (120.0, 0.0, 0.0), on_s=900.0, off_s=1800.0),
    Appliance("freezer", (0.0, 0.0, 150.0), on_s=700.0, off_s=2000.0),
    Appliance("kettle", (0.0, 2000.0, 0.0), on_s=150.0, off_s=5400.0, hours=range(6, 22)),
    Appliance("stove", (1800.0, 1200.0, 0.0), on_s=1500.0, off_s=14_400.0, hours=range(11, 20)),
    Appliance("washing machine", (0.0, 0.0, 2000.0), on_s=1200.0, off_s=21_600.0, hours=range(8, 20)),
    Appliance("heat pump", (900.0, 900.0, 900.0), on_s=1800.0, off_s=3600.0),
)


class House:
    """The load of a house without its wallboxes; the same seed and steps give the same load.

    ``time_s`` is the time of day in seconds since midnight.
    """

    def __init__(self, seed: int, time_s: float = 0.0) -> None:
        self._random = Random(seed)
        self._time_s = time_s
        self._left_s = dict.fromkeys(APPLIANCES, 0.0)  # how long each stays on

    def step(self, dt_s: float) -> None:
        """Let ``dt_s`` seconds pass."""
        self._time_s = (self._time_s + dt_s) % DAY_S
        hour = int(self._time_s // 3600)
        for appliance, left_s in self._left_s.items():
            if left_s > 0.0:
                self._left_s[appliance] = left_s - dt_s
            elif hour in appliance.hours and self._random.random() < dt_s / appliance.off_s:
                self._left_s[appliance] = appliance.on_s * self._random.uniform(0.7, 1.3)

    @property
    def power_w(self) -> PerLine:
        """What the house takes from each line now."""
        # lowest at four in the morning, highest twelve hours later
        base_w = 150.0 - 80.0 * math.cos((self._time_s / DAY_S - 4 / 24) * math.tau)
        on = [appliance.watts for appliance, left_s in self._left_s.items() if left_s > 0.0]
        l1, l2, l3 = (base_w + sum(watts[line] for watts in on) for line in range(3))
        return l1, l2, l3
