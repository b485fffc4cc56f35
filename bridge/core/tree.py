"""The places where current is limited: house connection, all wallboxes together, feeders inside feeders.

Each place has up to four bounds: one for each line conductor and one for the three together. A wallbox counts at every
place on the way from the house connection to its socket, on the lines its car uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from bridge.core.config import Config, GridConfig
from bridge.core.formulas import Formula

HOUSE, WALLBOXES, CONTROLLABLE, FIRST_GROUP = range(4)
"""Places by number; the groups follow in their order."""

LINES = (1, 2, 3)
SLOTS = 4
"""Bounds of each place: three lines, and all three together."""
PAIRS = tuple((one, other) for one in LINES for other in LINES if one != other)
"""For the imbalance: by how much the first line may carry more than the second."""

NOWHERE: frozenset[int] = frozenset()
"""No place at all."""

Uses = tuple[tuple[int, int], ...]
"""(number of a bound, how often a wallbox's amperes per line count there)."""


class Place(NamedTuple):
    """One place: its limits in watts over all lines and in amperes per line, and what measures it."""

    name: str
    power_w: Formula | None
    current_a: Formula | None
    meters: tuple[str, ...] = ()
    boxes: frozenset[str] = frozenset()
    by_line: bool = True
    """Whether its lines are limited: by a current, or by thirds of a power while no current is known."""
    by_total: bool = False
    """Whether all lines together have a limit that their lines alone do not keep to."""


class Tree(NamedTuple):
    """All places of a site, and the way to each wallbox (numbers of places, by wallbox id)."""

    places: tuple[Place, ...]
    ways: Mapping[str, tuple[int, ...]]

    @property
    def pairs(self) -> int:
        """The number of the first of the six bounds on imbalance; they come last."""
        return SLOTS * len(self.places)


@lru_cache(maxsize=8)
def tree(config: Config) -> Tree:
    """The places of a configuration."""
    numbers = {group.id: number for number, group in enumerate(config.groups, FIRST_GROUP)}
    above = {group.id: group.group for group in config.groups}
    ways: dict[str, tuple[int, ...]] = {}
    for box in config.wallboxes:
        way, inside = [HOUSE, WALLBOXES, CONTROLLABLE], box.group
        while inside is not None and numbers[inside] not in way:
            way.append(numbers[inside])
            inside = above[inside]
        ways[box.id] = tuple(way)
    grid: GridConfig = config.grid
    everyone = frozenset(ways)
    meters = tuple(meter.id for meter in config.meters if meter.role == "grid")
    places = [
        _place("", grid.connection_power_w, grid.connection_current_a, meters, everyone),
        _place("all wallboxes", grid.wallbox_power_w, grid.wallbox_current_a, (), everyone),
        Place(
            "drawn from the grid", grid.controllable_power_w, None, (), everyone, False, bool(grid.controllable_power_w)
        ),
    ]
    for group in config.groups:
        behind = frozenset(box for box, way in ways.items() if numbers[group.id] in way)
        meters = (group.meter,) if group.meter else ()
        places.append(_place(group.name or group.id, group.power_w, group.current_a, meters, behind))
    return Tree(tuple(places), ways)


def _place(
    name: str, power_w: Formula | None, current_a: Formula | None, meters: tuple[str, ...], boxes: frozenset[str]
) -> Place:
    limited = power_w is not None or current_a is not None
    return Place(name, power_w, current_a, meters, boxes, limited, power_w is not None and current_a is not None)


@lru_cache(maxsize=8192)
def uses(config: Config, box: str, lines: tuple[int, ...], single: int | None, twice: frozenset[int] = NOWHERE) -> Uses:
    """Where a wallbox counts whose car draws on ``lines``.

    ``single``: the line to which all its current may turn out to be confined, as long as nobody knows better; None:
    it is known. Only the imbalance sees it.

    ``twice``: the places (by number) where it counts twice, because it measures nothing and a meter shows what it and
    the house draw together. It is taken to draw all it is offered, and as much again is kept free, in case it is the
    house that draws that. So what is offered stays inside the limit whatever part of it the car uses: for house H,
    limit L, drawn D ≤ offered O, the next offer is (L − (H + D) + O) / 2, and H + that ≤ L as long as H + O ≤ L.
    """
    known = tree(config)
    used: list[tuple[int, int]] = []
    for number in known.ways[box]:
        place = known.places[number]
        times = 1 + (number in twice)
        if place.by_line:
            used += ((SLOTS * number + line - 1, times) for line in lines)
        if place.by_total:
            used.append((SLOTS * number + 3, times * len(lines)))
    if config.grid.max_imbalance_a is not None:
        for number, (one, other) in enumerate(PAIRS, known.pairs):
            # As long as nobody knows, a car counts both ways: on all its lines, and on one of them alone.
            if (one in lines and other not in lines) or one == single:
                used.append((number, 1))
    return tuple(used)
