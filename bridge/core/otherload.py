"""What the house draws beside its wallboxes, worked out from meters and wallboxes read at different moments.

Other load = grid meter − wallboxes. Taken naively, a car that starts between two readings looks like a toaster of
16 A, and the car would be paused for it. So each reading of the grid meter counts twice:

* at once, less all that the wallboxes may be drawing at most: whatever is above that is the house's for certain;
* once every wallbox has been read after it, less what they drew. A reading around which a car changed its current says
  nothing for certain: what was known before holds on, for a few readings.

The highest result of the last seconds holds (:data:`WINDOW_S`): a rise counts at once, a fall when it has lasted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bridge.core.config import Config, WallboxConfig
from bridge.core.model import Device, Offer, PerLine, Read, State, Values

WINDOW_S = 4.0

_LINES = (1, 2, 3)
_NOTHING: PerLine = (0.0, 0.0, 0.0)
_PATIENCE_S = 15.0
"""A grid reading that some wallbox has not answered after so long is given up for a newer one."""
_STEADY_A = 1.0
"""Wallboxes that changed by less than this, all together, held still."""
_UNSTEADY = 3
"""After so many readings with cars in motion the one that leaves least for them counts."""


def other_load(state: State) -> PerLine:
    """The house's other load in amperes per line, never below 0."""
    loads = [load for _, load in state.other_load]
    return (
        max((load[0] for load in loads), default=0.0),
        max((load[1] for load in loads), default=0.0),
        max((load[2] for load in loads), default=0.0),
    )


def observed(config: Config, state: State, event: Read) -> State:
    """The state with what a new reading of any device tells about the other load."""
    if any(meter.id == event.device and meter.role == "grid" for meter in config.meters):
        drawn = _grid(config, state)
        if drawn is None:
            return state
        state = _noted(state, event.mono, _less(drawn, (_most(box, state, event.mono) for box in config.wallboxes)))
        waiting = state.grid_sample
        if waiting is None or event.mono - waiting[0] > _PATIENCE_S:
            state = replace(state, grid_sample=(event.mono, drawn))
    if state.grid_sample is None:
        return state
    since, drawn = state.grid_sample
    boxes = [box for box in config.wallboxes if state.devices.get(box.id, Device()).online]
    if any(state.devices[box.id].mono < since for box in boxes):
        return state
    state = replace(state, grid_sample=None)
    before, after = zip(*(_around(config, box, state, event.mono) for box in boxes), strict=True) if boxes else ((), ())
    highest, lowest = _less(drawn, map(_lower, before, after)), _less(drawn, map(_higher, before, after))
    if any(high - low > _STEADY_A for high, low in zip(highest, lowest, strict=True)):
        if state.other_load and state.unsteady < _UNSTEADY:
            return _noted(replace(state, unsteady=state.unsteady + 1), event.mono, other_load(state))
        return _noted(state, event.mono, highest)
    return _noted(replace(state, unsteady=0), event.mono, highest)


def _noted(state: State, mono: float, load: PerLine) -> State:
    recent = (entry for entry in state.other_load if entry[0] > mono - WINDOW_S)
    return replace(state, other_load=(*recent, (mono, load)))


def _less(drawn: PerLine, boxes: Iterable[PerLine]) -> PerLine:
    left = list(drawn)
    for box in boxes:
        left = [a - b for a, b in zip(left, box, strict=True)]
    return max(0.0, left[0]), max(0.0, left[1]), max(0.0, left[2])


def _grid(config: Config, state: State) -> PerLine | None:
    """All grid meters together; None while one of them has no reading."""
    total = [0.0, 0.0, 0.0]
    for meter in config.meters:
        if meter.role == "grid":
            values = state.devices.get(meter.id, Device()).values
            lines = line_currents(values, _LINES, config.grid.voltage, signed=True)
            if lines is None:
                return None
            total = [a + b for a, b in zip(total, lines, strict=True)]
    return total[0], total[1], total[2]


def _most(box: WallboxConfig, state: State, mono: float) -> PerLine:
    """The most a wallbox may be drawing; an unreachable one is booked elsewhere and counts as the house's."""
    if not state.devices.get(box.id, Device()).online:
        return _NOTHING
    ceiling = state.offers.get(box.id, Offer()).lately_a(mono)
    return _on_lines(box.lines, box.capability.max_a if ceiling is None else ceiling)


def _around(config: Config, box: WallboxConfig, state: State, mono: float) -> tuple[PerLine, PerLine]:
    """What a wallbox drew before and after the grid reading. One that measures nothing draws all it is offered."""
    known = state.devices[box.id]
    after = line_currents(known.values, box.lines, config.grid.voltage)
    if after is None:
        drawn = _most(box, state, mono) if known.values.get("state") == "C" else _NOTHING
        return drawn, drawn
    return line_currents(known.previous, box.lines, config.grid.voltage) or after, after


def _lower(one: PerLine, other: PerLine) -> PerLine:
    return min(one[0], other[0]), min(one[1], other[1]), min(one[2], other[2])


def _higher(one: PerLine, other: PerLine) -> PerLine:
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])


def _on_lines(lines: tuple[int, ...], amperes: float) -> PerLine:
    return (amperes if 1 in lines else 0.0, amperes if 2 in lines else 0.0, amperes if 3 in lines else 0.0)


def flows(values: Values) -> bool:
    """Whether the values tell what flows through a meter."""
    return line_currents(values, _LINES, 230.0) is not None


def line_currents(values: Values, lines: tuple[int, ...], voltage: float, signed: bool = False) -> PerLine | None:
    """A device's line currents on the house lines it sits on, in amperes; None when nothing tells.

    Measured currents are best; else the power spread over the lines. Meters give currents without sign, so with
    ``signed`` the direction is taken from the line's power, else from the total power (export is negative).
    """
    found = [0.0, 0.0, 0.0]
    power = values.get("power_w")
    for own, line in zip(_LINES, lines, strict=False):
        current_a = values.get(f"current_l{own}_a")
        line_w = values.get(f"power_l{own}_w", power)
        if isinstance(current_a, int | float):
            exporting = signed and isinstance(line_w, int | float) and line_w < 0
            found[line - 1] = -abs(current_a) if exporting else abs(current_a)
        elif isinstance(power, int | float):
            found[line - 1] = power / voltage / len(lines)
        else:
            return None
    return found[0], found[1], found[2]
