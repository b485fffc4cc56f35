"""The sites and days that are played."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from bench.days.boxes import QUICK, SLOW, Manners
from bench.days.cars import Car
from bench.days.houses import Battery, Load, flat, household
from bench.days.plan import HOUSE, Command, Day, Visit, Watched
from bridge.core.config import Capability, Config, GridConfig, GroupConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.formulas import parse
from bridge.core.tree import PAIRS

VARIABLES = {"AVAIL": VariableConfig(parse(100), 0, 100), "PLIM": VariableConfig(parse(30000))}
POWER_W = 43_000.0
GARAGE = (
    lambda: Car(3, 16.0, delay_s=3, ramp_a_s=2, battery_wh=77_000),
    lambda: Car(1, 32.0, delay_s=4.5, ramp_a_s=1, short_a=0.7, battery_wh=58_000),
    lambda: Car(2, 16.0, delay_s=1, ramp_a_s=3, battery_wh=36_000),
    lambda: Car(3, 32.0, min_a=8.0, delay_s=4.9, ramp_a_s=1.5, start_s=20, battery_wh=52_000),
    lambda: Car(1, 16.0, delay_s=2, ramp_a_s=2, short_a=0.9, battery_wh=40_000),
    lambda: Car(3, 11.0, delay_s=5, ramp_a_s=1, start_s=12, battery_wh=80_000),
)
"""Cars as they come."""


def box(number: int, manners: Manners, **more: object) -> WallboxConfig:
    """A wallbox; it is told what its model can do as if from a profile."""
    made = WallboxConfig(f"E{number}", "keba-p30", f"127.0.0.1:{600 + number}", **more)  # type: ignore[arg-type]
    return made.able(Capability(6.0, 32.0, 0.1, manners.gap_s)).paced(manners.sweep_s)


def home(
    number: int,
    boxes: int = 1,
    fuse_a: float = 35.0,
    manners: Sequence[Manners] = (QUICK,),
    commands: Sequence[Command] = (),
    meter_silent: tuple[tuple[float, float], ...] = (),
    battery: bool = False,
    visits: Sequence[Visit] | None = None,
    load: Load | None = None,
    cars: Sequence[Car] = (),
    box_more: Mapping[str, object] | None = None,
    control: bool = False,
    **grid: object,
) -> Day:
    """One of the ten households, with a fuse of ``fuse_a`` on each line and a grid meter.

    ``control``: the wallboxes may draw PLIM watts from the grid.
    """
    if control:
        grid["controllable_power_w"] = parse("PLIM")
    random = Random(number)
    kinds = [manners[n % len(manners)] for n in range(boxes)]
    parked = [*cars] or [GARAGE[(number + n) % len(GARAGE)]() for n in range(boxes)]
    config = Config(
        grid=GridConfig(
            parse("43000 * AVAIL / 100"),
            parse(fuse_a),
            **grid,  # type: ignore[arg-type]
        ),
        variables=VARIABLES,
        meters=(MeterConfig("M1", "eastron-sdm630", "127.0.0.1:502", role="grid"),),
        wallboxes=tuple(
            box(n + 1, kinds[n], **{"min_current_a": parked[n].min_a, **(box_more or {})}) for n in range(boxes)
        ),
    )
    if visits is None:
        visits = []
        for n in range(boxes):
            id = f"E{n + 1}"
            visits += [
                Visit(id, 300 + 60 * n, random.uniform(6.5, 8) * 3600, random.uniform(0.1, 0.5)),
                Visit(id, random.uniform(15, 18) * 3600, charge=random.uniform(0.1, 0.5)),
            ]
            if n % 2:
                visits.append(Visit(id, random.uniform(9, 10) * 3600, 14 * 3600, 0.3))
    return Day(
        f"home {number}, {boxes} boxes",
        config,
        {f"E{n + 1}": car for n, car in enumerate(parked)},
        visits,
        {HOUSE: household(number) if load is None else load},
        [
            *lines(HOUSE, lambda v: fuse_a),
            total(HOUSE, lambda v: POWER_W * v["AVAIL"] / 100 / 230),
            *pairs(grid),
            *([Watched(HOUSE, None, lambda v: v["PLIM"] / 230, feed_in_only=True)] if control else []),
        ],
        commands,
        {f"E{n + 1}": kinds[n] for n in range(boxes)},
        meter_silent=meter_silent,
        battery=Battery() if battery else None,
    )


def park(boxes: int, fuse_a: float, feeders: int = 0, feeder_a: float = 0.0, priorities: bool = False) -> Day:
    """A car park: cars come in the morning and after noon, and stay for hours. Feeders have meters of their own."""
    random = Random(boxes)
    names = [f"F{n + 1}" for n in range(feeders)]
    loads = {HOUSE: flat(2.0, 1.5, 2.5)} | {name: flat(0.3, 0.3, 0.3) for name in names}
    kinds = [(QUICK, SLOW)[n % 4 == 3] for n in range(boxes)]
    wallboxes = [
        box(
            n + 1,
            kinds[n],
            group=names[n % feeders] if feeders else None,
            priority=2 if priorities and n % 5 == 0 else 1,
            weight=2.0 if priorities and n % 3 == 0 else 1.0,
            rotation=((1, 2, 3), (2, 3, 1), (3, 1, 2))[n % 3],
            min_current_a=GARAGE[n % len(GARAGE)]().min_a,
        )
        for n in range(boxes)
    ]
    config = Config(
        grid=GridConfig(parse("43000 * AVAIL / 100" if fuse_a <= 63 else "86000 * AVAIL / 100"), parse(fuse_a)),
        variables=VARIABLES,
        meters=(
            MeterConfig("M1", "eastron-sdm630", "127.0.0.1:502", role="grid"),
            *(MeterConfig(f"M{name}", "eastron-sdm630", "127.0.0.1:503", role="consumption") for name in names),
        ),
        groups=tuple(GroupConfig(name, current_a=parse(feeder_a), meter=f"M{name}") for name in names),
        wallboxes=tuple(wallboxes),
    )
    visits = []
    for n in range(boxes):
        visits.append(Visit(f"E{n + 1}", random.uniform(0, 2) * 3600, random.uniform(9, 12) * 3600, 0.2))
        visits.append(Visit(f"E{n + 1}", random.uniform(13, 14) * 3600, random.uniform(19, 23) * 3600, 0.4))
    bounds = [*lines(HOUSE, lambda v: fuse_a)]
    for name in names:
        bounds += lines(name, lambda v: feeder_a, frozenset(b.id for b in wallboxes if b.group == name))
    return Day(
        f"car park, {boxes} boxes",
        config,
        {f"E{n + 1}": GARAGE[n % len(GARAGE)]() for n in range(boxes)},
        visits,
        loads,
        bounds,
        manners={f"E{n + 1}": kinds[n] for n in range(boxes)},
    )


Amps = Callable[[Mapping[str, float]], float]


def lines(place: str, limit_a: Amps, boxes: frozenset[str] | None = None) -> list[Watched]:
    """The three lines of a place."""
    return [Watched(place, line, limit_a, boxes) for line in (1, 2, 3)]


def total(place: str, limit_a: Amps, boxes: frozenset[str] | None = None) -> Watched:
    """All lines of a place together."""
    return Watched(place, None, limit_a, boxes)


def pairs(grid: Mapping[str, object]) -> list[Watched]:
    """The imbalance, where it is limited."""
    most = grid.get("max_imbalance_a")
    return [Watched(HOUSE, pair, lambda v: float(str(most))) for pair in PAIRS] if most else []
