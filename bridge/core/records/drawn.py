"""What is drawn from the grid, and how much of it by wallboxes; whether that is inside the limits.

A wallbox that cannot be asked counts with all it may be drawing, never with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Decision
from bridge.core.loads.otherload import line_currents
from bridge.core.loads.phases import as_switched
from bridge.core.model import Device, Now, State
from bridge.core.records.inforce import CONNECTION
from bridge.core.records.journal import Minute, figure
from bridge.core.variables import fresh

TOLERANCE_W = 1.0
"""Measured values are whole watts. A meter's own error is not forgiven: what it showed is what was recorded."""


class Drawn(NamedTuple):
    """Watts: ``grid_w`` at the house connection (import positive; None: no grid meter that is read), and by wallbox.

    ``charging`` are the wallboxes that may be charging, ``estimated``: some of them could not be asked.
    """

    grid_w: float | None
    boxes: Mapping[str, float]
    charging: frozenset[str]
    estimated: bool

    @property
    def controllable_w(self) -> float:
        """What all wallboxes draw."""
        return sum(self.boxes.values())

    @property
    def attributed_w(self) -> float:
        """The share of the grid draw that wallboxes cause, at most (BK6-22-300, Anlage 1, 2.3)."""
        return self.controllable_w if self.grid_w is None else max(0.0, min(self.grid_w, self.controllable_w))


def drawn(config: Config, state: State, decision: Decision, now: Now) -> Drawn:
    """What is drawn by the newest readings."""
    boxes: dict[str, float] = {}
    charging: set[str] = set()
    estimated = False
    for box in [as_switched(state, box) for box in config.wallboxes]:
        device = state.device(box.id)
        answers = fresh(box, device, now)
        watts = _measured(config, box, device) if answers else None
        if answers and device.values.get("state") not in ("C", "D"):
            boxes[box.id] = watts or 0.0
            continue
        charging.add(box.id)
        if watts is None:
            watts, estimated = _at_most(config, box, state, now), True
        boxes[box.id] = watts
    return Drawn(decision.grid.power_w, boxes, frozenset(charging), estimated)


def _measured(config: Config, box: WallboxConfig, device: Device) -> float | None:
    power = device.values.get("power_w")
    if isinstance(power, int | float):
        return power
    lines = line_currents(device.values, box.lines, config.grid.voltage)
    return None if lines is None else sum(lines) * config.grid.voltage


def _at_most(config: Config, box: WallboxConfig, state: State, now: Now) -> float:
    ceiling = state.offer(box.id).lately_a(now.mono)
    amperes = box.capability.max_a if ceiling is None else ceiling
    return amperes * config.grid.voltage * len(box.lines)


def inside(reduced: Iterable[str], limits: Mapping[str, float], found: Drawn) -> bool:
    """Whether the draw keeps the reduced limits. Where no wallbox is charging there is nothing left to reduce.

    Limits in amperes are recorded and enforced, but not judged here: meters tell currents without their direction.
    """
    if not found.charging:
        return True
    for key in reduced:
        box, dot, quantity = key.rpartition(".")
        if not quantity.endswith("_w"):
            continue
        if dot:
            watts = found.boxes.get(box, 0.0)
        elif key == CONNECTION and found.grid_w is not None:
            watts = found.grid_w
        elif key == "controllable_power_w":
            watts = found.attributed_w
        else:
            watts = found.controllable_w
        if watts > limits.get(key, 0.0) + TOLERANCE_W:
            return False
    return True


def figures(seen: Drawn) -> dict[str, object]:
    """What is drawn at one moment, for the journal."""
    return {
        "grid_w": figure(seen.grid_w),
        "controllable_w": figure(seen.controllable_w),
        "attributed_w": figure(seen.attributed_w),
        "estimated": seen.estimated,
    }


def measured(minute: Minute, seen: Drawn) -> Minute:
    """The minute with one more look at what is drawn."""
    controllable_w, grid_w = seen.controllable_w, seen.grid_w
    minute = minute._replace(
        samples=minute.samples + 1,
        controllable_w=minute.controllable_w + controllable_w,
        controllable_max_w=max(minute.controllable_max_w, controllable_w),
        attributed_w=minute.attributed_w + seen.attributed_w,
        estimated=minute.estimated or seen.estimated,
    )
    if grid_w is None:
        return minute
    return minute._replace(
        grid_samples=minute.grid_samples + 1,
        grid_w=minute.grid_w + grid_w,
        grid_max_w=max(minute.grid_max_w, grid_w),
    )


def averages(minute: Minute, now: Now) -> dict[str, object]:
    """The averages and maxima of a minute with at least one look, for the journal."""
    return {
        "seconds": figure(now.mono - minute.since),
        "samples": minute.samples,
        "grid_w": figure(minute.grid_w / minute.grid_samples) if minute.grid_samples else None,
        "grid_max_w": figure(minute.grid_max_w),
        "controllable_w": figure(minute.controllable_w / minute.samples),
        "controllable_max_w": figure(minute.controllable_max_w),
        "attributed_w": figure(minute.attributed_w / minute.samples),
        "estimated": minute.estimated,
    }
