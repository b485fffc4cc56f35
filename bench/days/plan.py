"""What happens on a day: a site, its cars, their visits, grid commands, and the bounds that are watched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.days.boxes import Manners, Span
from bench.days.cars import Car
from bench.days.houses import Battery, Load
from bridge.core.config import Config

HOUSE = ""
"""The place of the house connection; others are named like their group."""


@dataclass
class Visit:
    """A car comes to a box with its battery ``charge`` full, and leaves."""

    box: str
    arrives: float
    leaves: float = math.inf
    charge: float = 0.2


@dataclass
class Command:
    """The grid operator sets variables; ``ttl_s``: for so long."""

    at: float
    values: Mapping[str, float | str]
    ttl_s: float | None = None
    source: str = "smgw"


@dataclass
class Day:
    """What happens at a site. ``loads``: what is drawn beside the wallboxes, by place that has a meter.

    ``values`` are the variables' at midnight. Meters show what was ``meter_lag_s`` ago.
    """

    name: str
    config: Config
    cars: Mapping[str, Car]
    visits: Sequence[Visit]
    loads: Mapping[str, Load]
    bounds: Sequence[Watched]
    commands: Sequence[Command] = ()
    manners: Mapping[str, Manners] = field(default_factory=dict)
    meter_lag_s: int = 1
    meter_silent: tuple[Span, ...] = ()
    battery: Battery | None = None
    values: dict[str, float] = field(default_factory=lambda: {"AVAIL": 100.0, "PLIM": 30_000.0})


@dataclass
class Watched:
    """A bound the judge watches: amperes on ``line``, on all lines together (None), or by how much the first of a pair
    of lines may carry more."""

    place: str
    line: int | tuple[int, int] | None
    limit_a: Callable[[Mapping[str, float]], float]
    boxes: frozenset[str] | None = None
    """None: all."""
    feed_in_only: bool = False
    """What the house draws does not count, only what it feeds in."""

    @property
    def name(self) -> str:
        """For people."""
        lines = "sum" if self.line is None else f"L{self.line}"
        return f"{self.place or 'house'} {lines}"
