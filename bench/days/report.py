"""The days as figures with their goals."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from bench.days import catalogue
from bench.days.houses import DAY_S, HOUSEHOLDS
from bench.days.optimum import most_wh
from bench.days.world import World
from bench.table import Row

PART = "Days"


class Allowed(NamedTuple):
    """The goals that differ from day to day; ``moves`` None: there is none."""

    wait_s: float
    moves: float | None


class Played(NamedTuple):
    """What came of a day."""

    name: str
    hours: float
    excess_as: float
    worst: str
    offered_a: float
    delivered_wh: float
    most_wh: float
    starts: float
    writes_h: float
    needless_h: float
    wait_s: float
    allowed: Allowed
    speed: float


def run(hours: float, days: int | None = None) -> Iterator[Row]:
    """All rows of this part: so many hours of the first ``days`` days (None: of all)."""
    numbers = range(len(catalogue.DAYS))[:days]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        turns = pool.map(catalogue.turns_after_a_step, range(HOUSEHOLDS))
        for played in pool.map(play, numbers, [hours] * len(numbers)):
            yield from _rows(played)
        yield Row(PART, "turns of a setpoint after a step of the house, ten houses", max(turns), "", 2)


def play(number: int, hours: float) -> Played:
    """Play one of the days."""
    make: Callable[[], catalogue.Planned] = catalogue.DAYS[number]
    planned = make()
    hours = min(hours, planned.hours)
    most = math.nan if planned.day.battery else most_wh(planned.day, hours * 3600)
    world = World(planned.day).play(hours * 3600)
    cars = max(1, len(world.boxes))
    worst = max((bound for _, bound in world.bounds), key=lambda bound: bound.excess_as)
    return Played(
        planned.day.name,
        hours,
        sum(bound.excess_as for _, bound in world.bounds),
        f"{worst.worst_a:.1f} A at {worst.name}, second {worst.worst_at:.0f}" if worst.excess_as else "",
        max(bound.offered_a for _, bound in world.bounds),
        sum(box.car.delivered_wh for box in world.boxes),
        most,
        sum(box.car.starts for box in world.boxes) / cars * DAY_S / 3600 / hours,
        sum(box.writes for box in world.boxes) / cars / hours,
        world.hunt.moves / cars / hours,
        world.longest_wait_s,
        Allowed(planned.longest_wait_s, planned.moves),
        hours * 3600 / world.spent_s,
    )


def _rows(day: Played) -> Iterator[Row]:
    name = f"{day.name}: "
    yield Row(PART, name + "drawn beyond the limits after the reaction", day.excess_as, "As", 0.0, note=day.worst)
    yield Row(PART, name + "offered beyond the room", day.offered_a, "A", 0.5)
    if not math.isnan(day.most_wh):
        share = 100 * day.delivered_wh / day.most_wh if day.most_wh else 100.0
        note = f"{day.delivered_wh / 1000:.1f} of {day.most_wh / 1000:.1f} kWh"
        # In a few hours fair shares cost much of what one greedy car could have had; over a day most get enough.
        goal = 85.0 if day.hours >= 24 else None
        yield Row(PART, name + "energy, of what was possible at most", share, "%", goal, least=True, note=note)
    yield Row(PART, name + "longest wait", day.wait_s, "s", day.allowed.wait_s)
    note = f"{day.starts:.0f} starts a car and day, {day.writes_h:.0f} setpoints a box and hour"
    yield Row(PART, name + "moves for no reason, a box and hour", day.needless_h, "", day.allowed.moves, note=note)
    yield Row(PART, name + "speed, of real time", day.speed, "x")
