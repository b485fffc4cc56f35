"""Decision: what follows from what is known, each part with its reason and source. All frozen.

``None`` means "no limit" or "not known"; ``0.0`` is a number like any other and, as a limit, means "nothing".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.grid.ramp import Release


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no value, and this is why."""

    reason: str


class Limit(NamedTuple):
    """A limit with the reason and the source it came from; ``amount`` in watts or amperes as its holder says."""

    amount: float
    reason: str
    source: str
    ordered: float | None = None
    """What it comes back to, while it is still coming back."""


class GridDecision(NamedTuple):
    """The house connection now. ``state``: init, unlimited, limited or failsafe; ``power_w`` None: no grid meter."""

    limit_w: float
    state: str
    reason: str
    source: str
    power_w: float | None = None
    limit_a: float | None = None
    """The limit of each line, where the configuration has one of its own."""
    since: float = 0.0
    """Since when it is in this state (UTC)."""
    until: float | None = None
    """When the first of the variables that limit runs out (UTC); None: not limited, or until it is changed."""
    minimum_w: float | None = None
    """What the grid operator must leave the controllable devices (BK6-22-300, Anlage 1, 4.5.2); None: there are none"""
    below_minimum: bool = False
    """A limit that was ordered is lower than that: obeyed all the same (4.6)."""
    reduced: tuple[Limit, ...] = ()
    """What the grid side has reduced, in watts; the limit of the house connection is the first if it is among them."""

    @property
    def cause(self) -> Limit:
        """Why the house is in this state: the first of the reduced limits, else the limit of the house connection."""
        if self.state == "limited" and self.reduced:
            return self.reduced[0]
        return Limit(self.limit_w, self.reason, self.source)


@dataclass(frozen=True, slots=True)
class GroupDecision:
    """What the wallboxes of a group may draw on that line where they may draw least, in amperes, and what binds it."""

    room_a: float
    reason: str
    source: str


class Setpoint(NamedTuple):
    """What a wallbox shall offer its car, in amperes per line; 0.0 pauses it.

    ``limit_a`` is the tightest bound on this box alone, before sharing. ``wanted_a`` is its fair share; the
    setpoint stays below that while the room for it is not confirmed yet. Reason and source say what binds.
    ``phases``: to how many lines the car shall be connected; None: as they are.
    """

    current_a: float
    limit_a: float
    wanted_a: float
    reason: str
    source: str
    phases: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from what we know. ``values`` are the variables' values by folded name."""

    values: Mapping[str, float | Unknown]
    grid: GridDecision
    setpoints: Mapping[str, Setpoint]
    notes: Mapping[str, str] = field(default_factory=dict)
    """What must be said of a variable beside its value (clamped), by folded name."""
    alarms: Mapping[str, str] = field(default_factory=dict)
    releases: Mapping[str, Release] = field(default_factory=dict)
    """For the next round: becomes :attr:`State.releases`."""
    groups: Mapping[str, GroupDecision] = field(default_factory=dict)
