"""House, wallboxes and meters on one house connection: pure physics, time passes only in :meth:`World.advance`."""

from __future__ import annotations

import math
from collections.abc import Collection

from bridge.core.model import PerLine
from bridge.simulator.house import House
from bridge.simulator.meter import Sdm630
from bridge.simulator.wallbox import Wallbox

NO_LOAD_V = 230.0
LINE_OHMS = 0.05
"""Impedance of the house connection: the voltage sags by half a volt for each 10 A."""

STEP_S = 0.5
"""Accelerated time is cut into steps no longer than this, so that cars stay as quick as they are."""

SEES = {"consumption": (True, False), "wallbox": (False, True), "production": (False, False), "battery": (False, False)}
"""Meter role to whether it sees (the house, the cars). Every other role sees both."""


class World:
    """Everything behind one house connection; ``meters`` are pairs of (role, meter).

    ``speed`` accelerates house and cars, but not the wallboxes' communication watchdogs: the requests they wait for
    come in real time.
    """

    def __init__(
        self, house: House, wallboxes: Collection[Wallbox], meters: Collection[tuple[str, Sdm630]], speed: float = 1.0
    ) -> None:
        self._house = house
        self._wallboxes = wallboxes
        self._meters = meters
        self._speed = speed
        self._volts: PerLine = (NO_LOAD_V, NO_LOAD_V, NO_LOAD_V)

    def advance(self, dt_s: float) -> None:
        """Let ``dt_s`` seconds of real time pass."""
        for wallbox in self._wallboxes:
            wallbox.wait(dt_s)
        steps = math.ceil(dt_s * self._speed / STEP_S)
        for _ in range(steps):
            self._step(dt_s * self._speed / steps)

    def _step(self, dt_s: float) -> None:
        self._house.step(dt_s)
        for wallbox in self._wallboxes:
            wallbox.step(dt_s, self._volts)
        drawn = [wallbox.line_amps() for wallbox in self._wallboxes]
        cars = [sum(amps[line] for amps in drawn) for line in range(3)]
        house = [self._house.power_w[line] / self._volts[line] for line in range(3)]
        for role, meter in self._meters:
            sees_house, sees_cars = SEES.get(role, (True, True))
            l1, l2, l3 = (sees_house * house[line] + sees_cars * cars[line] for line in range(3))
            meter.measure(dt_s, (l1, l2, l3), self._volts)
        v1, v2, v3 = (NO_LOAD_V - LINE_OHMS * (house[line] + cars[line]) for line in range(3))
        self._volts = (v1, v2, v3)
