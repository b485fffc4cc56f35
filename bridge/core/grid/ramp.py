"""The way back: a limit that the grid side had reduced rises gradually, after a while that differs from house to house.

When a grid operator lifts the limits of a whole street, its cars must not all come back in the same second (BK6-22-300,
Anlage 1, 4.3). Only rises are eased; a lower limit holds at once. A rise takes ``ramp_s`` from nothing to the whole,
and correspondingly less for a part.
"""

from __future__ import annotations

import math
from typing import NamedTuple

STEP_S = 1.0
"""A rise goes in steps of so long: wallboxes and topics need not follow more often."""

_GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it spread evenly between 0 and 1, whatever their number."""


class Release(NamedTuple):
    """How far a limit has come back: ``amount`` was in force at ``mono``.

    It begins to rise at ``begins``; None: it is still reduced, or rises no further.
    """

    amount: float
    mono: float
    begins: float | None = None


def eased(
    before: Release | None, raw: float, reduced: bool, now_mono: float, ramp_s: float, delay_s: float
) -> Release | None:
    """What is in force now, with what has to be remembered for the next round; None: ``raw`` as it is.

    ``before`` is what this function last said of the limit (None: there is nothing to ease). ``raw`` is what its
    formula allows, in watts or amperes; ``reduced``: that is less than it could be. A rise that begins now begins
    ``delay_s`` from now.
    """
    if before is None or raw <= before.amount:
        return Release(raw, now_mono) if reduced else None
    begins = now_mono + delay_s if before.begins is None else before.begins
    rising_s = now_mono - max(before.mono, begins)
    if rising_s < 0 or (before.begins is None and ramp_s > 0):
        return Release(before.amount, now_mono, begins)
    if rising_s < STEP_S <= ramp_s:
        return before
    amount = before.amount + rising_s * raw / ramp_s if ramp_s > 0 else raw
    if amount < raw:
        return Release(amount, now_mono, begins)
    return Release(raw, now_mono) if reduced else None


def restarted(raw: float, failsafe: float, changed_ago_s: float, now_mono: float, ramp_s: float) -> Release | None:
    """What to begin with after a restart: nobody remembers how far the limit had come back.

    When its variables changed ``changed_ago_s`` ago, or will have (a clock that was set back), and a rise from then
    may not be over, it begins anew, from the fail-safe.
    """
    if failsafe < raw and changed_ago_s < ramp_s:
        return Release(failsafe, now_mono, now_mono)
    return None


def delay_s(most_s: float, lot: float, number: int) -> float:
    """How long to wait, evenly spread up to ``most_s``. ``lot`` was drawn at the start, ``number`` counts the sets."""
    return most_s * math.fmod(lot + number * _GOLDEN, 1.0)
