"""Charging rules: the cap that a wallbox's own list of rules gives it now.

The list is read top to bottom, and the first rule whose conditions all hold decides. A rule without conditions always
holds; when none holds, the wallbox pauses. Rules are a cap like any other: what the grid allows is decided elsewhere,
and the lowest wins.

Unknown means smaller: nobody can tell whether a rule holds whose condition has no value. Then both may be, and the
lower of what it gives and of what would follow counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Limit, Unknown
from bridge.core.model import Now, State
from bridge.core.rules.rule import Hold, RuleConfig, Surplus
from bridge.core.variables import Names

SOURCE = "rules"

NEVER = Hold(float("inf"))
"""How a rule did that never held."""

_NOT_YET = Surplus(0.0, reason="not worked out yet")


class View(NamedTuple):
    """What rules look at: a moment of a site."""

    config: Config
    state: State
    names: Names
    now: Now


class Case(NamedTuple):
    """A rule that decides, or may decide. ``ceased``: its condition did not long ago (see ``undercut_s``)."""

    number: int
    rule: RuleConfig
    ceased: bool = False
    doubt: str = ""
    """Why nobody knows whether it holds; empty: it does."""

    def __str__(self) -> str:
        return f"rule {self.number} ({self.rule})"


def cap(view: View, box: WallboxConfig, lines: int) -> Limit | None:
    """What the rules of a wallbox allow, in amperes on each of the ``lines`` its car uses.

    None: it has no rules, or they are overridden. What the rules must remember,
    :func:`bridge.core.rules.surplus.followed` has written down before.
    """
    found = cases(view, box)
    if found is None:
        return None
    given = [give(view, box, lines, case) for case in found]
    if not found or found[-1].doubt:
        given.append(Limit(0.0, "no rule holds now", SOURCE))
    lowest = min(given, key=lambda limit: limit.amount)
    doubts = [f"{case} may hold or not: {case.doubt}" for case in found if case.doubt]
    if not doubts:
        return lowest
    return Limit(lowest.amount, f"{lowest.reason}, the lowest of what may be, for {'; '.join(doubts)}", SOURCE)


def cases(view: View, box: WallboxConfig) -> Sequence[Case] | None:
    """The rules that may decide: those nobody knows of, up to and with the first one that holds for certain.

    None: there are no rules, or they are overridden.
    """
    override = view.state.overrides.get(box.id)
    if not box.rules or (override is not None and "rules" in override.off):
        return None
    local = _local(view.now.utc, view.now.zone)
    found: list[Case] = []
    for number, rule in enumerate(box.rules, 1):
        if not rule.covers(local):
            continue
        when = 1.0 if rule.when is None else view.names.value(rule.when)
        if isinstance(when, Unknown):
            found.append(Case(number, rule, doubt=when.reason))
        elif when > 0:
            return [*found, Case(number, rule)]
        if rule.lasts_s > 0 and lately(view, box, rule):
            return [*found, Case(number, rule, ceased=True)]
    return found


@lru_cache(maxsize=2)
def _local(utc: float, zone: tzinfo | None) -> datetime:
    """The site's clock: one moment for all wallboxes of a round."""
    return datetime.fromtimestamp(utc, zone or UTC)


def lately(view: View, box: WallboxConfig, rule: RuleConfig) -> bool:
    """Whether a rule was in force not longer ago than it lasts after it has ceased."""
    last = view.state.holds.get(box.id, {}).get(rule, NEVER).last
    return view.now.mono - last <= rule.lasts_s


def give(view: View, box: WallboxConfig, lines: int, case: Case) -> Limit:
    """What a rule gives if it decides, in amperes on each of the ``lines`` the car uses."""
    if case.ceased:
        gave_a = view.state.holds[box.id][case.rule].gave_a
        reason = f"{case}: its condition ceased, the minimum for {case.rule.lasts_s:g} s"
        return Limit(min(gave_a, box.least_a), reason, SOURCE)
    if case.rule.surplus:
        return _from_surplus(view, box, case)
    per_ampere, unit, formula = 1.0, "A", case.rule.current_a
    if case.rule.power_w is not None:
        per_ampere, unit, formula = view.config.grid.voltage * lines, "W", case.rule.power_w
    assert formula is not None
    value = view.names.value(formula)
    if isinstance(value, Unknown):
        return Limit(0.0, f"{case}: {formula.text} has no value: {value.reason}", SOURCE)
    shown = f"{formula.text} = {value:g} {unit}" if formula.names else f"{value:g} {unit}"
    return Limit(max(0.0, value) / per_ampere, f"{case}: {shown}", SOURCE)


def _from_surplus(view: View, box: WallboxConfig, case: Case) -> Limit:
    """The share of the surplus while it is in force, and never less than ``min_current_a``."""
    rule, surplus = case.rule, view.state.surplus or _NOT_YET
    floor_a = rule.min_current_a or 0.0
    share_a = surplus.shares_a.get(box.id, 0.0)
    known = surplus.reason if surplus.power_w is None else f"{round(surplus.power_w, -2):.0f} W"
    if not lately(view, box, rule):
        waits = f", for {rule.start_s:g} s" if share_a >= box.least_a else ""
        return Limit(floor_a, f"{case}: surplus {known}: waiting for {box.least_a:g} A{waits}", SOURCE)
    if share_a < box.least_a:
        reason = f"{case}: surplus {known}: the minimum for {rule.lasts_s:g} s"
        return Limit(max(floor_a, box.least_a), reason, SOURCE)
    return Limit(max(floor_a, share_a), f"{case}: {share_a:g} A of a surplus of {known}", SOURCE)
