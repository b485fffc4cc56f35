"""Devices nobody polls: those that others feed, and meters that are worked out from other devices.

Fed ones go offline when nothing has come for too long. Expression meters are worked out once in every ``poll_s``, in
the order of the list; where a formula has no value, the whole meter is offline and says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bridge.core.config import Config, MeterConfig, WallboxConfig
from bridge.core.events import Event, Link, Read
from bridge.core.formulas import Formula, NoValue, evaluate, fold
from bridge.core.model import Device, Now, State
from bridge.core.variables import Names, current, fresh

DT = "dt"
"""In the formulas of an expression meter: seconds since it was last worked out, 0 after a time without a value."""

CURRENTS = frozenset({"current_l1_a", "current_l2_a", "current_l3_a"})
"""A meter at the house connection must tell these, or its power."""

MAX_NUMBER = 1e12
"""Beyond any quantity of a house: what is larger is a mistake of whoever feeds it."""


def news(config: Config, state: State, device: MeterConfig | WallboxConfig, now: Now) -> Event | None:
    """What there is to tell of one device of ``config.inputs`` now; None when nothing happened."""
    known = state.device(device.id)
    if isinstance(device, MeterConfig) and device.fed_by == "expression":
        return _worked_out(config, state, device, known, now)
    if known.online and not fresh(device, known, now):
        return Link(device.id, False, f"not fed for {device.patience_s:g} s")
    return None


def _worked_out(config: Config, state: State, meter: MeterConfig, known: Device, now: Now) -> Event | None:
    if known.online and now.mono // meter.poll_s == known.mono // meter.poll_s:
        return None
    variables = current(config, state)
    names = Names(config, state, variables, now)
    own = {key: value for key, value in known.values.items() if key in meter.values and isinstance(value, float)}
    # What flowed while nobody could tell is not made up afterwards.
    own[DT] = now.mono - known.mono if known.online else 0.0

    def lookup(key: str) -> float:
        return own.get(key, 0.0) if key in meter.values or key == DT else names(key)

    try:
        formulas = {key: variable.formula for key, variable in variables.items()}
        if circle := circle_of(meter, config.meters, formulas):
            raise NoValue(f"refers to itself: {circle}")
        for quantity, formula in meter.values.items():
            own[quantity] = evaluate(formula, lookup)
    except NoValue as error:
        return None if known.reason == error.reason else Link(meter.id, False, error.reason)
    del own[DT]
    return Read(meter.id, own, now.mono)


def circle_of(meter: MeterConfig, meters: Iterable[MeterConfig], variables: Mapping[str, Formula]) -> str:
    """How an expression meter refers to itself by way of other meters and variables; empty when it does not.

    ``variables`` are formulas by folded name.
    """
    uses = {key: _referred(formula.names) for key, formula in variables.items()}
    uses |= {_node(other.id): _referred(names_of(other)) for other in meters if other.fed_by == "expression"}
    start = _node(meter.id)
    paths, seen = [[start]], {start}
    while paths:
        path = paths.pop()
        for name in uses.get(path[-1], ()):
            if name == start:
                return " -> ".join(step.rstrip(".") for step in (*path, start))
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return ""


def names_of(meter: MeterConfig) -> frozenset[str]:
    """The names an expression meter reads, folded, without its own quantities and :data:`DT`."""
    return frozenset().union(*(formula.names for formula in meter.values.values())) - {*meter.values, DT}


def _node(id: str) -> str:
    """A device among the names; with a dot, because a variable may have the same name."""
    return fold(id) + "."


def _referred(names: Iterable[str]) -> list[str]:
    return sorted({head + dot for head, dot, _ in (name.partition(".") for name in names)})


def letter(value: object) -> str:
    """The state letter of IEC 61851-1 for a letter or the number of it (1 is A); ValueError for anything else."""
    text = f"{value:g}" if isinstance(value, float) else str(value).strip().upper()
    if len(text) == 1 and text in "ABCDEF":
        return text
    if len(text) == 1 and text in "123456":
        return "ABCDEF"[int(text) - 1]
    raise ValueError(f"{str(value)[:40]!r} is no state; allowed: A to F or 1 to 6")


def number(value: object) -> float:
    """A number that was fed, also one written as a text; ValueError for anything else."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if abs(found) <= MAX_NUMBER:
            return found
    raise ValueError(f"{str(value)[:40]!r} is no number, or out of all proportion")
