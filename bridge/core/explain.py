"""Explain: each limit, who binds, and what each wallbox gets and why; now, or if variables had other values.

A dry run: the same decision as in a round, on a copy of what is known. Nothing is set, and every wallbox is taken to
have followed already, so that what is told is where it leads to and not the way there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from bridge.core import bounds, step
from bridge.core.config import Config, MeterConfig, WallboxConfig
from bridge.core.decision import GridDecision, Setpoint
from bridge.core.events import Confirmed, Link, Read, Values
from bridge.core.formulas import Formula, fold
from bridge.core.limits import Books
from bridge.core.model import Now, Offer, Present, State, Variable
from bridge.core.roll import called
from bridge.core.setpoints import lines_of
from bridge.core.tree import PAIRS, tree
from bridge.core.variables import current

_ROUNDS = 6
"""So many rounds settle even those who wait for each other."""
_DUST_A = 0.5
"""Rounding down to the steps of the boxes may leave so much of a bound that is full."""


class Bound(NamedTuple):
    """One bound: the limit in watts or amperes with its reason, the room it leaves the wallboxes, what they use of it.

    ``place`` is empty for the house connection; ``on`` is a line, ``all lines``, or a pair of lines that must not
    differ by more.
    """

    place: str
    on: str
    room_a: float
    used_a: float
    full: bool
    reason: str
    source: str


class Explanation(NamedTuple):
    """All of it. ``boxes`` by wallbox id: where its setpoint leads to."""

    grid: GridDecision
    bounds: tuple[Bound, ...]
    boxes: Mapping[str, Setpoint]


def explained(config: Config, state: State, now: Now, given: Mapping[str, Formula] | None = None) -> Explanation:
    """What is decided and why. ``given``: values of variables for the sake of the argument, by name."""
    spelled = {key: variable.name for key, variable in current(config, state).items()}
    assumed = {
        fold(name): Variable(spelled.get(fold(name), name), formula, "assumed", now.utc)
        for name, formula in (given or {}).items()
    }
    contacts = {key: contact for key, contact in state.contacts.items() if key not in assumed}
    state = state.but(variables={**state.variables, **assumed}, contacts=contacts)
    for _ in range(_ROUNDS):
        decision = step.decide(config, state, called(config, state, None), now)
        offers = {box: _followed(state, box, point.current_a, now) for box, point in decision.setpoints.items()}
        if offers == state.offers:
            break
        state = state.but(offers=offers)
    books = Books(config, state, now)
    return Explanation(decision.grid, tuple(_bounds(books, decision.grid, decision.setpoints)), decision.setpoints)


def supposed(config: Config, known: Mapping[str, Variable], readings: Mapping[str, Values], now: Now) -> State:
    """A house for the sake of the argument: at every wallbox a car that charges, meters that show nothing, no contact
    active, no limit on its way back, and on top of it the ``readings`` of devices by folded id."""
    devices = {device.id: _supposed(device, readings.get(fold(device.id), {})) for device in config.devices}
    snapshot = step.first(config, State(variables=known), now)
    links = [Link(id, True) for id in devices]
    held = [Confirmed(box.id, 0.0, 1) for box in config.wallboxes]
    # The wallboxes come after the meters, so that everybody knows what they drew meanwhile.
    reads = [Read(one.id, devices[one.id], now.mono) for one in config.devices if one.fed_by != "expression"]
    state = step.run(snapshot, [*links, *held, *reads], now).state
    contacts = {key: contact for key, contact in state.contacts.items() if not contact.reason}
    return state.but(contacts=contacts, releases={})


def _supposed(device: MeterConfig | WallboxConfig, readings: Values) -> Values:
    if isinstance(device, WallboxConfig):
        return {"state": "C", "current_l1_a": 0.0, "current_l2_a": 0.0, "current_l3_a": 0.0, **readings}
    return {"power_w": 0.0, **readings}


def _followed(state: State, box: str, current_a: float, now: Now) -> Offer:
    offer = state.offer(box)
    device = state.devices.get(box)
    if device is None or not device.online:
        return offer
    return offer._replace(confirmed_a=current_a, pending=(), paused_mono=float("-inf"), raised_mono=now.mono)


def _bounds(books: Books, grid: GridDecision, boxes: Mapping[str, Setpoint]) -> list[Bound]:
    config, places = books.config, tree(books.config).places
    found = bounds.bounds(books, grid)
    used = [0.0] * len(found.rooms)
    for box in config.wallboxes:
        device, offer = books.state.device(box.id), books.state.offer(box.id)
        present = Present(box, device, offer, books.state.cars.get(box.id))
        lines, single = lines_of(books.state, present)
        for bound, times in bounds.counted(config, found, present, lines, single):
            used[bound] += times * boxes[box.id].current_a
    names = [(place.name, on) for place in places for on in ("L1", "L2", "L3", "all lines")]
    names += [("imbalance", f"L{one} over L{other}") for one, other in PAIRS]
    return [
        Bound(*name, room, taken, room - taken < _DUST_A, limit.reason, limit.source)
        for name, room, taken, limit in zip(names, found.rooms, used, found.limits, strict=False)
        if room < math.inf
    ]


def sentences(config: Config, explanation: Explanation) -> list[str]:
    """The same in words, one line each: what people ask for when a car gets less than they thought."""
    grid = explanation.grid
    told = [f"house connection: {grid.limit_w:g} W ({grid.state}): {grid.cause.reason}"]
    for bound in explanation.bounds:
        room = f"{bound.used_a:.1f} of {max(0.0, bound.room_a):.1f} A" + (", full" if bound.full else "")
        told.append(f"  {bound.place or 'house'}, {bound.on}: {room}: {bound.reason}")
    for box in config.wallboxes:
        point = explanation.boxes[box.id]
        gets = f"{point.current_a:g} A" if point.current_a > 0 else "nothing"
        told.append(f"{box.id}: {gets}, alone it might have {point.limit_a:g} A: {point.reason}")
    return told
