"""An electric car as its wallbox sees it: pure physics, stepped with the time that passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

MIN_A = 6.0
"""The least current a wallbox can offer (IEC 61851-1); a car offered less does not charge."""

EFFICIENCY = 0.9
"""Part of the energy taken from the line that arrives in the battery."""


class Model(NamedTuple):
    """What a car was built as: phases its charger uses, current per phase, battery size."""

    phases: int
    max_a: float
    battery_wh: float


MODELS = (
    Model(phases=3, max_a=16.0, battery_wh=77_000.0),
    Model(phases=3, max_a=16.0, battery_wh=58_000.0),
    Model(phases=3, max_a=32.0, battery_wh=52_000.0),
    Model(phases=1, max_a=32.0, battery_wh=64_000.0),
    Model(phases=2, max_a=16.0, battery_wh=36_000.0),
)


@dataclass
class Car:
    """One car that comes, charges and leaves.

    It obeys a new limit ``reaction_s`` after it was offered (IEC 61851-1 allows 5 s): it goes down at once and up
    by ``ramp_a_per_s``. ``arrival_wh`` is in the battery each time it comes; ``change_s`` is when it comes or leaves
    next, unless :meth:`plug` or :meth:`unplug` does it first. ``current_a`` flows in each of its phases.
    """

    model: Model
    reaction_s: float
    ramp_a_per_s: float
    arrival_wh: float
    change_s: float
    stay_s: float = 8 * 3600.0
    away_s: float = 2 * 3600.0
    plugged: bool = False
    full: bool = False
    stored_wh: float = 0.0
    current_a: float = 0.0
    _clock_s: float = 0.0
    _obeyed_a: float = 0.0
    _offers: list[tuple[float, float]] = field(default_factory=list)
    """(when it will be obeyed, amperes), oldest first."""

    @classmethod
    def drawn(cls, model: Model, random: Random) -> Car:
        """Make a car of ``model`` with habits drawn from ``random``; it arrives within the first seconds."""
        return cls(
            model,
            reaction_s=random.uniform(2.0, 5.0),
            ramp_a_per_s=random.uniform(1.0, 2.0),
            arrival_wh=model.battery_wh * random.uniform(0.1, 0.5),
            change_s=random.uniform(1.0, 6.0),
        )

    @property
    def state(self) -> str:
        """State of the control pilot (IEC 61851-1): A no car, B connected, C charging."""
        if not self.plugged:
            return "A"
        return "C" if self.current_a > 0.0 else "B"

    def plug(self) -> None:
        """Arrive and plug in."""
        self.plugged, self.full = True, False
        self.stored_wh = self.arrival_wh
        self.change_s = self.stay_s
        self.interrupt()

    def unplug(self) -> None:
        """Unplug and leave."""
        self.plugged = False
        self.change_s = self.away_s
        self.interrupt()

    def interrupt(self) -> None:
        """Lose the line: the wallbox's contactor opened. Charging begins anew with the next offer."""
        self.current_a = self._obeyed_a = 0.0
        self._offers.clear()

    def step(self, dt_s: float, offered_a: float, volts: Sequence[float]) -> float:
        """Let ``dt_s`` seconds pass under an offer of ``offered_a`` per phase; return the watt hours taken.

        ``volts`` are those of the phases the wallbox has; the car uses no more of them than it is built for.
        """
        self.change_s -= dt_s
        if self.change_s <= 0.0:
            if self.plugged:
                self.unplug()
            else:
                self.plug()
        if not self.plugged:
            return 0.0
        self._notice(dt_s, offered_a)
        goal_a = min(self._obeyed_a, self.model.max_a)
        if self.full or goal_a < MIN_A:
            goal_a = 0.0
        self.current_a = min(goal_a, self.current_a + self.ramp_a_per_s * dt_s)
        return self._charge(self.current_a * sum(volts[: self.model.phases]) * dt_s / 3600.0)

    def _notice(self, dt_s: float, offered_a: float) -> None:
        """Pass the offer through the delay with which this car obeys."""
        self._clock_s += dt_s
        newest = self._offers[-1][1] if self._offers else self._obeyed_a
        if offered_a != newest:
            self._offers.append((self._clock_s + self.reaction_s, offered_a))
        while self._offers and self._offers[0][0] <= self._clock_s:
            self._obeyed_a = self._offers.pop(0)[1]

    def _charge(self, taken_wh: float) -> float:
        """Store energy; a battery without room for all of it is full and takes nothing more until the next visit."""
        if self.stored_wh + taken_wh * EFFICIENCY > self.model.battery_wh:
            self.full, self.current_a = True, 0.0
            return 0.0
        self.stored_wh += taken_wh * EFFICIENCY
        return taken_wh
