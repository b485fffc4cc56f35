"""Surplus: what would be fed in without the wallboxes, shared by those whose rules charge with it.

Wallboxes that charge by other rules have theirs first: what they draw is no surplus. The rest goes by priority, then
by the order of the list, on the lines each car is known to use. Readings of meters and wallboxes are of different
moments, and clouds are short: the surplus is smoothed, must be enough for a while before it starts a car, and a car is
kept at its minimum for a while before it is paused.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Unknown
from bridge.core.formulas import NoValue, fold
from bridge.core.loads.phases import as_switched
from bridge.core.model import Now, State
from bridge.core.rules import balance, overrides, rules
from bridge.core.rules.rule import Hold, RuleConfig, Surplus
from bridge.core.rules.rules import NEVER, Case, View
from bridge.core.variables import Names, current

SMOOTH_S = 20.0
"""Time constant of the smoothing."""
AGAIN_S = 0.5
"""It is worked out again after so long."""
STEP_A = 0.5
"""Shares are whole steps of this: a setpoint need not follow every watt."""

_Cases = Mapping[str, Sequence[Case]]
"""Of every wallbox with a car and rules that remember: its rules that may decide."""


def followed(config: Config, state: State, now: Now) -> State:
    """The state with what the rules must remember; once a round, after its events. Most sites have nothing to do."""
    boxes = _remembering(config)
    if not boxes:
        return state
    names = Names(config, state, current(config, state), now)
    view = View(config, state, names, now)
    found = {box.id: rules.cases(view, box) or () for box in boxes if box.id in state.cars}
    state = state.but(surplus=_shared(view, found))
    view = view._replace(state=state)
    return state.but(holds={box.id: _held(view, box, found[box.id]) for box in boxes if box.id in found})


@lru_cache(maxsize=8)
def _remembering(config: Config) -> Sequence[WallboxConfig]:
    """The wallboxes some of whose rules remember, the first to be served first."""
    boxes = [box for box in config.wallboxes if any(rule.remembers for rule in box.rules)]
    return sorted(boxes, key=lambda box: -box.priority)


def _shared(view: View, found: _Cases) -> Surplus:
    """The surplus of this moment, and everybody's share of it."""
    config = view.config
    sunny = {box: case.rule for box, cases in found.items() for case in cases if case.rule.surplus}
    now = _smoothed(view, sunny)
    if now.power_w is None:
        return now
    left_w = now.power_w
    shares: dict[str, float] = {}
    offered_w: dict[str, float] = {}
    for box in _remembering(config):
        if (rule := sunny.get(box.id)) is None:
            continue
        per_ampere = config.grid.voltage * _used_lines(view.state, box)
        offered_w[box.id] = max(0.0, left_w) * rule.factor
        share_a = min(_most(view, box), offered_w[box.id] / per_ampere)
        share_a = math.floor(share_a / STEP_A + 1e-6) * STEP_A
        shares[box.id] = share_a if share_a >= box.least_a else 0.0
        if view.state.cars[box.id].asleep_at is None:
            # Less than its minimum is left to the next one, unless it charges all the same.
            floor_a = max(rule.min_current_a or 0.0, box.least_a if rules.lately(view, box, rule) else 0.0)
            left_w -= max(shares[box.id] / rule.factor, floor_a) * per_ampere
    return replace(now, shares_a=shares, offered_w=offered_w)


def _smoothed(view: View, sunny: Container[str]) -> Surplus:
    """What there is to share, smoothed; a grid command need not wait until it is worked out anew."""
    before, mono = view.state.surplus, view.now.mono
    if before is None or before.power_w is None:
        was_w, since_s = 0.0, math.inf
    else:
        was_w, since_s = before.power_w, mono - before.mono
        if since_s < AGAIN_S:
            return before
    try:
        return Surplus(mono, was_w + (_left_w(view, sunny) - was_w) * min(1.0, since_s / SMOOTH_S))
    except NoValue as error:
        return Surplus(mono, reason=error.reason)


def _left_w(view: View, sunny: Container[str]) -> float:
    """The surplus less what is drawn by wallboxes that do not charge with it, in watts."""
    config, names = view.config, view.names
    power_w = balance.surplus_w(config, names)
    for box in config.wallboxes:
        if box.id not in sunny and not names(f"{fold(box.id)}.com_err"):
            power_w -= balance.drawn_w(box, config, names)
    return power_w


def _used_lines(state: State, box: WallboxConfig) -> int:
    """How many lines the car uses; as long as nobody knows, all of the wallbox."""
    return len(state.cars[box.id].lines or as_switched(state, box).lines)


def _most(view: View, box: WallboxConfig) -> float:
    """The most a wallbox could use of a surplus: what its own limits allow, in amperes per line."""
    override = overrides.cap(view.state, box)
    most = min(box.capability.max_a, override.amount if override else math.inf)
    lines_v = view.config.grid.voltage * _used_lines(view.state, box)
    for formula, per_ampere in ((box.max_current_a, 1.0), (box.max_power_w, lines_v)):
        if formula is not None:
            value = view.names.value(formula)
            most = min(most, 0.0 if isinstance(value, Unknown) else max(0.0, value) / per_ampere)
    return most


def _held(view: View, box: WallboxConfig, found: Sequence[Case]) -> Mapping[RuleConfig, Hold]:
    """How the rules of a wallbox do now. Those that could not decide are forgotten."""
    before = view.state.holds.get(box.id, {})
    return {case.rule: _hold(view, box, case, before.get(case.rule, NEVER)) for case in found if case.rule.remembers}


def _hold(view: View, box: WallboxConfig, case: Case, before: Hold) -> Hold:
    mono, surplus = view.now.mono, view.state.surplus
    if case.doubt:
        return before
    if case.ceased:
        return replace(before, since=math.inf)
    if not case.rule.surplus:
        return Hold(mono, mono, rules.give(view, box, _used_lines(view.state, box), case).amount)
    if surplus is None or surplus.shares_a.get(box.id, 0.0) < box.least_a:
        return replace(before, since=math.inf)
    since = min(before.since, mono)
    if rules.lately(view, box, case.rule) or mono - since >= case.rule.start_s:
        return Hold(since, mono, box.least_a)
    return replace(before, since=since)
