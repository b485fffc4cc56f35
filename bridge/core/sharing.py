"""Sharing: from room on the three lines to one setpoint a wallbox.

Two steps. :func:`share` gives every wallbox that wants to charge its fair part. :func:`release` lets setpoints
follow: lower at once, raise only into confirmed room, so that the sum never exceeds the limit in whatever order the
writes land. Current is reserved when it is granted, not when it is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from bridge.core.model import PerLine

_DUST_A = 1e-9
"""Below any current that matters: what is left of sums and differences of floats."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A wallbox that wants to charge: between ``min_a`` and ``cap_a`` amperes on each of its house ``lines``."""

    id: str
    lines: tuple[int, ...]
    min_a: float
    cap_a: float
    step_a: float
    priority: int = 1
    charging: bool = False


def share(wishes: Sequence[Wish], room: PerLine) -> Mapping[str, float]:
    """Equal shares per line, in amperes, rounded down to each box's step; 0.0 for those who must pause.

    Higher priorities come first, the lower ones share what is left. Inside a priority, when not all can have their
    minimum, who charges already comes first (contactors and cars are spared), then the order of the list. The level
    rises for all alike until a line is full; a box on several lines gets what its tightest line allows, and what it
    leaves goes to the others.
    """
    left = list(room)
    shares: dict[str, float] = {}
    ranked = sorted(wishes, key=lambda wish: (-wish.priority, not wish.charging))
    for _, group in groupby(ranked, attrgetter("priority")):
        for wish, amperes in _fill(_admit(group, shares, left), left):
            shares[wish.id] = floor_to_step(amperes, wish.step_a)
    return shares


def _admit(wishes: Iterable[Wish], shares: dict[str, float], left: list[float]) -> list[Wish]:
    """Those whose minimum fits beside the minima of those before them; the minima are taken off ``left``."""
    admitted = []
    for wish in wishes:
        shares[wish.id] = 0.0
        if min(wish.cap_a, _tightest(left, wish.lines)) + _DUST_A >= wish.min_a:
            admitted.append(wish)
            for line in wish.lines:
                left[line - 1] -= wish.min_a
    return admitted


def _fill(wishes: Sequence[Wish], left: list[float]) -> list[tuple[Wish, float]]:
    """Max–min fair levels above the minima; ``left`` is what remains of each line and is used up here."""
    rising = list(wishes)
    settled: list[tuple[Wish, float]] = []
    while rising:
        # The line whose level is lowest binds first; its boxes are settled, the others rise on.
        level, binding = math.inf, 0
        for line, rest in enumerate(left, 1):
            if (here := _level(rising, line, rest)) < level:
                level, binding = here, line
        higher = []
        for wish in rising:
            if binding and binding not in wish.lines:
                higher.append(wish)
                continue
            amount = min(wish.cap_a, max(level, wish.min_a))
            settled.append((wish, amount))
            for line in wish.lines:
                left[line - 1] -= amount - wish.min_a
        rising = higher
    return settled


def _level(wishes: Iterable[Wish], line: int, left: float) -> float:
    """The level to which ``left`` amperes beyond the minima lift the boxes on a line; infinite: all reach their cap."""
    edges: list[tuple[float, int]] = []
    for wish in wishes:
        if line in wish.lines:
            edges += (wish.min_a, 1), (wish.cap_a, -1)
    edges.sort()
    left = max(0.0, left)
    level, climbing = 0.0, 0
    for edge, change in edges:
        cost = climbing * (edge - level)
        if cost > left:
            return level + left / climbing
        left -= cost
        level = edge
        climbing += change
    return math.inf


def _tightest(left: Sequence[float], lines: Iterable[int]) -> float:
    """What is left on that one of the lines that has least."""
    return min([left[line - 1] for line in lines])


def floor_to_step(amperes: float, step_a: float) -> float:
    """Round down to a whole number of steps, forgiving the dust of float arithmetic (19.9 stays 19.9)."""
    return round(math.floor(amperes / step_a + 1e-6) * step_a, 6)


class Held(NamedTuple):
    """What a box holds, in amperes per line: ``confirmed_a`` for certain, ``ceiling_a`` at most, because of setpoints
    that were sent and may have landed."""

    confirmed_a: float
    ceiling_a: float


def release(
    targets: Mapping[str, float], boxes: Sequence[Wish], held: Mapping[str, Held], room: PerLine
) -> Mapping[str, float]:
    """The setpoints that may be sent now on the way to ``targets`` (both in amperes per line; no target: 0.0).

    A target at or below what a box holds for certain is sent at once. Above it, the box gets what its lines have
    left beside everyone's ceiling, but never less than it holds.
    """
    left = list(room)
    for box in boxes:
        for line in box.lines:
            left[line - 1] -= held[box.id].ceiling_a
    setpoints: dict[str, float] = {}
    for box in boxes:
        target, (confirmed, ceiling) = targets.get(box.id, 0.0), held[box.id]
        if target > confirmed + _DUST_A:
            free = _tightest(left, box.lines)
            allowed = max(confirmed, floor_to_step(ceiling + free, box.step_a))
            # Too little to start with: stay paused.
            target = min(target, allowed) if allowed + _DUST_A >= box.min_a else 0.0
            for line in box.lines:
                left[line - 1] -= max(0.0, target - ceiling)
        setpoints[box.id] = target
    return setpoints
