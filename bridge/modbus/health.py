"""How the units behind one connection are doing, and how much patience each has earned.

A silent unit is left alone for a growing time and then only probed, as long as others wait for the same wire.
Instants are those of the event loop's clock, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_SILENCE_S = 30.0
SHORTEST_PROBE_S = 0.2
PATIENT_EVERY, PATIENT_SHARE = 4, 0.8
"""Every so manieth probe of a silent unit lasts this share of its timeout."""
ALONE_RETRY_S = 0.2
"""A unit that shares the wire with no living one is asked again soon: nobody else has to wait for it."""

ALIVE_S = 10.0
"""A unit that answered in this time counts as living."""


@dataclass(slots=True)
class _Unit:
    failures: int = 0
    silent_until: float = float("-inf")
    answered: float = float("-inf")


class Health:
    """The units of one connection, by unit id."""

    def __init__(self) -> None:
        self._units: dict[int, _Unit] = {}
        self._slowest_s = 0.0

    def silent_until(self, number: int) -> float:
        """Until when the unit is to be left alone."""
        return self._unit(number).silent_until

    def patience_s(self, number: int, timeout_s: float, now: float) -> float:
        """How long to wait for an answer: a unit that does not answer may not hold up living ones for long.

        At first contact, and now and then, it gets almost as long as a slow device may need; else it is only probed.
        """
        unit = self._unit(number)
        known = unit.answered > float("-inf") and not unit.failures
        if known or not self._others_live(number, now):
            return timeout_s
        if unit.failures % PATIENT_EVERY == 0:
            return PATIENT_SHARE * timeout_s
        return min(timeout_s, max(SHORTEST_PROBE_S, 4 * self._slowest_s))

    def answered(self, number: int, took_s: float, now: float) -> bool:
        """The unit answered; whether it had been silent before."""
        self._slowest_s = max(took_s, 0.95 * self._slowest_s)
        unit = self._unit(number)
        was_silent = unit.failures > 0
        unit.failures, unit.silent_until, unit.answered = 0, float("-inf"), now
        return was_silent

    def silent(self, number: int, now: float) -> bool:
        """The unit did not answer; whether that is news."""
        unit = self._unit(number)
        unit.failures += 1
        wait_s = min(LONGEST_SILENCE_S, 2.0 ** (unit.failures - 1))
        unit.silent_until = now + (wait_s if self._others_live(number, now) else ALONE_RETRY_S)
        return unit.failures == 1

    def _others_live(self, number: int, now: float) -> bool:
        return any(unit.answered > now - ALIVE_S for other, unit in self._units.items() if other != number)

    def _unit(self, number: int) -> _Unit:
        unit = self._units.get(number)
        if unit is None:
            unit = self._units[number] = _Unit()
        return unit
