"""What could have been charged at most on a day, had everything been known from the beginning.

An upper bound, not a plan: rooms are averages over a few minutes, nothing takes time, no car needs its minimum, and
each line is looked at by itself. Per line it is a maximum flow from visits to slots of time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from bench.days.houses import DAY_S
from bench.days.plan import HOUSE, Day, Visit

SLOT_S = 300
_DUST = 1e-6


def most_wh(day: Day, until: float = DAY_S) -> float:
    """The most energy all cars together could have taken, in watt hours; the battery of the house is left out."""
    slots = int(until // SLOT_S)
    needs = [_need(day, visit, until) for visit in day.visits]
    lines = sum(
        _flow(
            [need if line in _lines(day, visit) else 0.0 for visit, need in zip(day.visits, needs, strict=True)],
            [_rates(day, visit, slots) for visit in day.visits],
            _rooms(day, line, slots),
        )
        for line in (1, 2, 3)
    )
    widths = [len(_lines(day, visit)) for visit in day.visits]
    together = _flow(
        [need * width for need, width in zip(needs, widths, strict=True)],
        [[rate * width for rate in _rates(day, visit, slots)] for visit, width in zip(day.visits, widths, strict=True)],
        _rooms(day, None, slots),
    )
    return min(lines, together) * 230 / 3600


def _lines(day: Day, visit: Visit) -> tuple[int, ...]:
    box = next(box for box in day.config.wallboxes if box.id == visit.box)
    return box.lines[: day.cars[visit.box].phases]


def _need(day: Day, visit: Visit, until: float) -> float:
    """Ampere seconds on each line that the car would take if it were offered all the box has."""
    car = copy.deepcopy(day.cars[visit.box])
    car.plug(visit.charge)
    before = car.delivered_wh
    for second in range(int(visit.arrives), int(min(visit.leaves, until))):
        car.step(second, 32.0)
    return (car.delivered_wh - before) * 3600 / 230 / car.phases


def _rates(day: Day, visit: Visit, slots: int) -> Sequence[float]:
    """The most the car can take in each slot, in ampere seconds on each of its lines."""
    most_a = day.cars[visit.box].max_a
    overlaps = (min(visit.leaves, (n + 1) * SLOT_S) - max(visit.arrives, n * SLOT_S) for n in range(slots))
    return [most_a * max(0.0, seconds) for seconds in overlaps]


def _rooms(day: Day, line: int | None, slots: int) -> Sequence[float]:
    """The room in each slot at the house connection, in ampere seconds on a line or (None) on all lines together."""
    limits = [watched.limit_a for watched in day.bounds if watched.place == HOUSE and watched.line == line]
    steps = sorted(
        [(command.at, command.values) for command in day.commands]
        + [(c.at + c.ttl_s, {name: day.values[name] for name in c.values}) for c in day.commands if c.ttl_s],
        key=lambda step: step[0],
    )
    values, load = dict(day.values), day.loads.get(HOUSE)
    rooms = [0.0] * slots
    for second in range(slots * SLOT_S):
        while steps and steps[0][0] <= second:
            values.update({name: float(value) for name, value in steps.pop(0)[1].items()})
        drawn = 0.0
        if load:
            drawn = load[line - 1][second] if line else load[0][second] + load[1][second] + load[2][second]
        limit = min((limit_a(values) for limit_a in limits), default=1e9)
        rooms[second // SLOT_S] += max(0.0, limit - drawn)
    return rooms


def _flow(needs: Sequence[float], rates: Sequence[Sequence[float]], rooms: Sequence[float]) -> float:
    """The maximum flow through source, visits, slots and sink: augmented along shortest paths until there is none."""
    need, room = list(needs), list(rooms)
    free = [list(row) for row in rates]
    used = [[0.0] * len(rooms) for _ in needs]
    total = 0.0
    for visit in range(len(need)):
        while need[visit] > _DUST and (path := _path(visit, free, used, room)):
            width = min([need[visit], room[path[-1]]])
            for n in range(0, len(path) - 1, 2):
                width = min(width, free[path[n]][path[n + 1]])
                if n + 2 < len(path) - 1:
                    width = min(width, used[path[n + 2]][path[n + 1]])
            for n in range(0, len(path) - 1, 2):
                free[path[n]][path[n + 1]] -= width
                used[path[n]][path[n + 1]] += width
                if n + 2 < len(path) - 1:
                    free[path[n + 2]][path[n + 1]] += width
                    used[path[n + 2]][path[n + 1]] -= width
            need[visit] -= width
            room[path[-1]] -= width
            total += width
    return total


def _path(
    visit: int, free: Sequence[Sequence[float]], used: Sequence[Sequence[float]], room: Sequence[float]
) -> list[int]:
    """The shortest way from a visit to a slot with room: visit, slot, visit that gives way there, slot …"""
    ways: dict[int, list[int]] = {visit: [visit]}
    seen: set[int] = set()
    edge = [visit]
    while edge:
        after = []
        for one in edge:
            for slot, left in enumerate(free[one]):
                if left <= _DUST or slot in seen:
                    continue
                seen.add(slot)
                way = [*ways[one], slot]
                if room[slot] > _DUST:
                    return way
                for other in range(len(free)):
                    if other not in ways and used[other][slot] > _DUST:
                        ways[other] = [*way, other]
                        after.append(other)
        edge = after
    return []
