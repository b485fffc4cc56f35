"""The rest of a house for a whole day, a value a second and line: ten households, from frugal to all-electric."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from bridge.core.model import PerLine

DAY_S = 86_400
HOUSEHOLDS = 10

Load = Sequence[Sequence[float]]
"""Amperes by line (three of them) and second."""


def household(number: int) -> Load:
    """The day of one of the households, the same each time. Even ones have photovoltaics, some a heat pump."""
    house = _House(Random(number))
    house.base()
    house.cycles(0, 110.0, 900, 1800)
    house.cooking()
    if number % 3 == 0:
        house.cycles(1, 1000.0, 1500, 1800, lines=3)
    if number % 4 == 1:
        house.showers(21_000.0)
    if number % 2 == 0:
        house.sun(10_000.0 if number % 4 == 0 else 4600.0, lines=3 if number % 4 == 0 else 1)
    return house.amperes()


def flat(*amperes: float) -> Load:
    """The same load all day."""
    return [array("f", [line]) * DAY_S for line in amperes]


class _House:
    """Collects changes of load; their running sum is the load."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._changes = [array("d", bytes(8 * (DAY_S + 1))) for _ in range(3)]

    def on(self, line: int, watts: float, start: float, lasts_s: float, lines: int = 1) -> None:
        begin, end = (int(min(DAY_S, max(0, at))) for at in (start, start + lasts_s))
        for each in range(line, line + lines):
            self._changes[each % 3][begin] += watts
            self._changes[each % 3][end] -= watts

    def base(self) -> None:
        """Standby, light and computers: 200 to 500 W, another level every few minutes."""
        for line in range(3):
            at = 0.0
            while at < DAY_S:
                lasts_s = self._random.uniform(60, 600)
                self.on(line, self._random.uniform(70, 170), at, lasts_s)
                at += lasts_s

    def cycles(self, line: int, watts: float, on_s: float, off_s: float, lines: int = 1) -> None:
        """What a thermostat switches all day: a refrigerator, a heat pump."""
        at = self._random.uniform(0, off_s)
        while at < DAY_S:
            lasts_s = on_s * self._random.uniform(0.7, 1.3)
            self.on(line, watts, at, lasts_s, lines)
            at += lasts_s + off_s * self._random.uniform(0.7, 1.3)

    def cooking(self) -> None:
        """Kettle, oven with its thermostat, hob that pulses, washing machine that heats and spins."""
        for hour in (6.5, 9, 13, 16, 19.5):
            self.on(1, 2000.0, self._about(hour), 180)
        for hour in (12.0, 18.5):
            at, end = self._about(hour), self._about(hour) + 3600
            self.on(2, 3500.0, at, 600)
            at += 600
            while at < end:
                lasts_s = self._random.uniform(25, 60)
                self.on(2, self._random.uniform(2500, 3500), at, lasts_s)
                at += lasts_s + self._random.uniform(30, 120)
            at = self._about(hour)
            for _ in range(60):
                self.on(0, 1800.0, at, 7)
                at += 15
        at = self._about(10)
        end = at + 5400
        self.on(0, 2100.0, at, 900)
        while at < end:
            self.on(0, self._random.uniform(100, 600), at, 12)
            at += self._random.uniform(15, 40)

    def showers(self, watts: float) -> None:
        """An instant water heater on all lines: many short bursts."""
        for hour in (6.2, 6.6, 7.0, 12.4, 18.0, 21.5, 22.0):
            at = self._about(hour)
            for _ in range(self._random.randint(1, 6)):
                lasts_s = self._random.uniform(4, 240)
                self.on(0, watts / 3 * self._random.uniform(0.5, 1), at, lasts_s, lines=3)
                at += lasts_s + self._random.uniform(3, 60)

    def sun(self, peak_w: float, lines: int) -> None:
        """Photovoltaics under passing clouds."""
        at, line = 6 * 3600.0, 0 if lines == 3 else 2
        cloudy = False
        while at < 18 * 3600:
            lasts_s = self._random.uniform(20, 240) if cloudy else self._random.uniform(60, 1200)
            end = at + lasts_s
            while at < end:
                height = math.sin((at / 3600 - 6) / 12 * math.pi)
                watts = peak_w * max(0.0, height) * (0.3 if cloudy else 1.0) / lines
                self.on(line, -watts, at, 15, lines)
                at += 15
            cloudy = not cloudy

    def amperes(self) -> Load:
        return [array("f", [watts / 230 for watts in accumulate(line)])[:DAY_S] for line in self._changes]

    def _about(self, hour: float) -> float:
        return (hour + self._random.uniform(-0.4, 0.4)) * 3600


@dataclass
class Battery:
    """A house battery that wants to see nothing flow through the grid meter; it follows with a time constant."""

    most_w: float = 5000.0
    capacity_wh: float = 10_000.0
    follows_s: float = 3.0
    stored_wh: float = 5000.0
    _power_w: float = 0.0

    def step(self, grid: PerLine) -> float:
        """What it draws on each line (below 0: it gives), in amperes, after a second of this at the grid meter."""
        self._power_w -= sum(grid) * 230 / self.follows_s
        room_wh, most_w = self.capacity_wh - self.stored_wh, self.most_w
        low = -most_w if self.stored_wh > 0 else 0.0
        self._power_w = max(low, min(most_w if room_wh > 0 else 0.0, self._power_w))
        self.stored_wh += self._power_w / 3600
        return self._power_w / 230 / 3
