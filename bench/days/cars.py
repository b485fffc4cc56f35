"""Electric cars, second by second: what they draw of what they are offered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

VOLTAGE = 230.0
TAPER_AT = 0.9
"""From this state of charge on the car wants less and less, down to its minimum when it is full."""


@dataclass
class Car:
    """A car with a charger of ``phases`` lines. It obeys an offer ``delay_s`` after it was made (at most 5 s, IEC
    61851-1, Annex A), goes down at once then and up by ``ramp_a_s`` amperes a second.

    Below ``min_a`` it does not charge; offered current again, it closes its contactor after ``start_s``. It draws
    ``short_a`` less than it is offered. One that sleeps draws nothing before ``wakes_at`` (seconds of the day).
    """

    phases: int = 3
    max_a: float = 16.0
    min_a: float = 6.0
    delay_s: float = 3.0
    ramp_a_s: float = 2.0
    start_s: float = 5.0
    short_a: float = 0.0
    battery_wh: float = 60_000.0
    wakes_at: float = 0.0
    stored_wh: float = 0.0
    plugged: bool = False
    current_a: float = 0.0
    delivered_wh: float = 0.0
    starts: int = 0
    """How often its contactor closed."""
    _obeyed_a: float = 0.0
    _offers: deque[tuple[float, float]] = field(default_factory=deque)
    _ready_at: float = 0.0

    def plug(self, charge: float) -> None:
        """Arrive with the battery ``charge`` full (0 to 1)."""
        self.plugged, self.stored_wh = True, charge * self.battery_wh
        self._rest()

    def unplug(self) -> None:
        """Leave."""
        self.plugged = False
        self._rest()

    def _rest(self) -> None:
        self.current_a = self._obeyed_a = 0.0
        self._offers.clear()

    def most_a(self, now: float) -> float:
        """The most it would draw of any offer now."""
        charge = self.stored_wh / self.battery_wh
        if not self.plugged or charge >= 1 or now < self.wakes_at:
            return 0.0
        taper = min(1.0, max(0.0, (charge - TAPER_AT) / (1 - TAPER_AT)))
        return self.max_a - (self.max_a - self.min_a) * taper

    def wants(self, now: float) -> bool:
        """Whether it would charge if it could."""
        return self.most_a(now) > 0

    def step(self, now: float, offered_a: float) -> None:
        """Let the second before ``now`` pass under this offer."""
        if not self.plugged:
            return
        newest = self._offers[-1][1] if self._offers else self._obeyed_a
        if offered_a != newest:
            self._offers.append((now + self.delay_s, offered_a))
        while self._offers and self._offers[0][0] <= now:
            self._obeyed_a = self._offers.popleft()[1]
        goal = min(self._obeyed_a - self.short_a, self.most_a(now))
        if self._obeyed_a < self.min_a or goal <= 0:
            self.current_a, self._ready_at = 0.0, now + self.start_s
            return
        if now < self._ready_at:
            return
        self.starts += self.current_a == 0.0
        self.current_a = min(goal, self.current_a + self.ramp_a_s)
        taken_wh = self.current_a * VOLTAGE * self.phases / 3600
        self.delivered_wh += taken_wh
        self.stored_wh += taken_wh
