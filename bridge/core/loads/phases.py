"""Phases in force: to how many of its lines a wallbox that can switch connects its car, as far as that is known.

Unknown means the worst: as long as nobody has confirmed that a wallbox is on one phase, it counts on all its lines. How
many it shall be on is decided in :mod:`bridge.core.switching`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Setpoint
from bridge.core.events import Link, PhasesConfirmed, Values
from bridge.core.loads.phase import Phases
from bridge.core.model import Now, State

FLOWING_A = 1.0
"""Below this nothing flows: contactors are switched, and a line counts as not used."""

KEPT_S = 60.0
"""A wallbox that has settled keeps its turn for so long, to be given current again."""

_UNKNOWN = Phases()
_WORDS = {1: "one phase", 3: "three phases"}


def as_switched(state: State, box: WallboxConfig) -> WallboxConfig:
    """The wallbox on the lines it connects its car to: the first one only, if it is certain to be on one phase.

    Currents on its other lines are more certain than anything it was told.
    """
    known = state.phases.get(box.id)
    if known is None or known.confirmed != 1 or not box.switches:
        return box
    values = state.device(box.id).values
    return box if _flows(values, (2, 3)) else box.on(box.lines[:1])


def lines(state: State, box: WallboxConfig) -> int:
    """To how many lines the wallbox connects its car."""
    return len(as_switched(state, box).lines)


def _flows(values: Values, own_lines: tuple[int, ...]) -> bool:
    """Whether a current is measured on one of the box's own lines."""
    currents = [values.get(f"current_l{line}_a") for line in own_lines]
    return any(isinstance(amperes, int | float) and amperes >= FLOWING_A for amperes in currents)


def confirmed(state: State, event: PhasesConfirmed) -> State:
    """What is known after a wallbox told its phases. What it said before it was sent a command is history."""
    known = state.phases.get(event.wallbox, _UNKNOWN)
    told = event.phases
    if known.revision is not None:
        if event.revision < known.revision:
            return state
        reason = known.reason if told == known.wanted else ""
        after = replace(known, confirmed=told, wanted=told, reason=reason, revision=None, failed=told != known.wanted)
    elif told == known.confirmed:
        return state
    elif known.changing:
        after = replace(known, confirmed=told)
    else:
        # Somebody else has switched it, or it was met. What should be is decided anew.
        after = replace(known, confirmed=told, wanted=told, reason="")
    return forgotten(state.but(phases={**state.phases, event.wallbox: after}), event.wallbox)


def after_link(state: State, event: Link) -> State:
    """What is known after a link was lost or is back: a wallbox out of sight may reboot, and come back otherwise."""
    known = state.phases.get(event.device)
    if known is None or event.online:
        return state
    return state.but(phases={**state.phases, event.device: Phases(switched_mono=known.switched_mono)})


def forgotten(state: State, box: str) -> State:
    """The state without what was seen of the lines that the car of a wallbox uses."""
    car = state.cars.get(box)
    if car is None:
        return state
    # The roll of a round holds for certain devices: these are others, if only because of that car.
    return state.but(cars={**state.cars, box: car._replace(lines=None)}, devices={**state.devices})


def hold(state: State, box: WallboxConfig) -> str:
    """Why a wallbox must not charge while it is switched; empty when it may."""
    known = state.phases.get(box.id)
    if known is None or not known.changing or known.wanted is None or not box.switches:
        return ""
    return f"switching to {_WORDS[known.wanted]}: {known.reason}"


def lines_wanted(state: State, box: WallboxConfig) -> tuple[int, ...]:
    """The house lines of a wallbox when it will have been switched."""
    return box.lines[:1] if state.phases.get(box.id, _UNKNOWN).wanted == 1 else box.lines


def keeps_its_turn(state: State, box: WallboxConfig, now: Now) -> bool:
    """Whether a wallbox is being switched, or was just now: it is not paused to make room for others."""
    known, able = state.phases.get(box.id), box.switches
    if known is None or able is None:
        return False
    return known.changing or now.mono - known.switched_mono < able.settle_s + KEPT_S


def switched_mono(state: State, box: WallboxConfig) -> float:
    """When a wallbox was last switched."""
    return state.phases.get(box.id, _UNKNOWN).switched_mono


def told(config: Config, state: State, setpoints: Mapping[str, Setpoint]) -> Mapping[str, Setpoint]:
    """The setpoints with the phases that go with them, and why there is only one."""
    if not state.phases:
        return setpoints
    changed = dict(setpoints)
    for box in config.wallboxes:
        known = state.phases.get(box.id)
        if known is None or not box.switches or (known.changing and known.revision is None):
            continue  # as it is: also while the car is still being paused
        setpoint = setpoints[box.id]
        reason = setpoint.reason
        if known.confirmed == 1:
            reason = f"{reason}; on one phase: {known.reason}" if known.reason else f"{reason}; on one phase"
        changed[box.id] = setpoint._replace(phases=known.wanted, reason=reason)
    return changed


def alarms(state: State) -> Mapping[str, str]:
    """The wallboxes that do not do what they are told."""
    return {
        f"{box}_phases": f"{box} did not switch its phases; it is not asked again before its connection was lost"
        for box, known in state.phases.items()
        if known.failed
    }
